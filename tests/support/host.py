"""A host of one file on this machine, which does wrong what a test tells it to."""

from __future__ import annotations

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 4000  # about a megabyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Host(ThreadingHTTPServer):
    """Serves `CONTENT` under every path; what it does wrong is set by the test, what it was asked is noted."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content = CONTENT
        self.cut: int | None = None  # bytes after which the connection breaks
        self.chunked = False  # does not say how long an answer is
        self.ranges = True
        self.shifted = False
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        host, wanted = self.server, self.headers["Range"]
        host.asked.append(wanted)
        if self.path == "/missing":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and host.ranges else 0
        whole = len(host.content)
        if start >= whole:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{whole}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start + host.shifted}-{whole - 1}/{whole}")
        if host.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(whole - start))
        self.end_headers()
        sent = host.content[start : whole if host.cut is None else host.cut]
        if host.chunked:
            sent = b"%x\r\n" % (whole - start) + sent + (b"\r\n0\r\n\r\n" if host.cut is None else b"")
        self.wfile.write(sent)

    def log_message(self, *args: object) -> None:
        return
