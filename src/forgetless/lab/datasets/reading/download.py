"""Downloading a file so that it can be cut off at any moment: it goes on where it was, and is checked in the end.

The host is not trusted: whatever it answers, or does not, ends in the right file or in one sentence.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import socket
import stat
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.lab.datasets.reading import archive
from forgetless.lab.datasets.reading.entry import Source

_PIECE = 1 << 18
_WAIT = 60.0  # seconds without an answer
_LONGEST = 6 * 3600.0  # seconds for all of a download
_MOST = 64 << 30  # bytes of a download


def download(
    source: Source,
    root: Path,
    on_bytes: Callable[[int, int | None], None] = lambda done, all: None,
    *,
    seconds: float = _LONGEST,
) -> str:
    """Download to a `.part` beside the file, check it, and only then give it its name. A file that is there is checked.

    A `.part` of an earlier attempt is continued with an HTTP Range, if the host can and the file there has not changed
    its length; else it starts over.

    Args:
        source: what to download.
        root: the root of all datasets; the file goes to `root / source.path`.
        on_bytes: called with how many bytes are there, and how many there will be (None if the host does not say).
        seconds: how long it may take from the first connection to the last byte.

    Returns:
        The file's SHA-256.

    Raises:
        ForgetlessError: the host does not answer or have it, answers what is not HTTP, redirects from https to http or
            takes too long, the connection is cut (the `.part` stays), or the checksum is another (the `.part` is
            removed; a file that is there stays).
    """
    path = root / source.path
    with files.told(path):
        if path.exists():
            return _checked(path, source)
        part = path.with_name(f"{path.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        with _Deadline(seconds) as deadline:
            _fill(source.url, part, deadline, on_bytes)
        found = _checked(part, source, remove=True)
        part.replace(path)
    return found


def unpack(source: Source, root: Path) -> Path | None:
    """Unpack an archive that was downloaded into its folder; gives the folder, or None for what is no archive.

    Raises:
        ForgetlessError: as `archive.unpack` does; nothing of it is left then.
    """
    if source.unpack is None:
        return None
    archive.unpack(root / source.path, root / source.unpack)
    return root / source.unpack


class _Deadline:
    """A moment at which all connections end, whatever their host does: a host that sends a byte a minute too."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.passed = seconds, False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def watch(self, connection: socket.socket) -> None:
        self._sockets.append(connection)
        if self.passed:
            self._end()

    def _end(self) -> None:
        self.passed = True
        for each in self._sockets:
            with contextlib.suppress(OSError, ValueError):
                each.shutdown(socket.SHUT_RDWR)

    def opener(self) -> urllib.request.OpenerDirector:
        """Opens http and https, on connections that end here."""
        deadline = self

        class Plain(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                deadline.watch(self.sock)

        class Secure(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                deadline.watch(self.sock)

        class Http(urllib.request.HTTPHandler):
            def http_open(self, request: Any) -> Any:
                return self.do_open(Plain, request)

        class Https(urllib.request.HTTPSHandler):
            def https_open(self, request: Any) -> Any:
                return self.do_open(Secure, request)

        return urllib.request.build_opener(Http, Https, _Redirects)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a host to another one, but never from https to http and nowhere else."""

    max_redirections = 5

    def redirect_request(self, request: Any, answer: Any, code: int, text: str, headers: Any, url: str) -> Any:
        scheme = urllib.parse.urlsplit(url).scheme
        if scheme != "https" and (scheme != "http" or request.type == "https"):
            answer.close()
            raise ForgetlessError(f"{request.full_url} cannot be had: the host redirects to {quoted(url)}.")
        return super().redirect_request(request, answer, code, text, headers, url)


@contextlib.contextmanager
def _had(url: str, deadline: _Deadline, advice: str = "try again when there is a network") -> Iterator[None]:
    """One sentence for whatever the HTTP libraries raise."""
    try:
        yield
    except ForgetlessError:
        raise
    except Exception as error:
        reason = getattr(error, "reason", error)
        said = getattr(reason, "strerror", None) or brief(reason if isinstance(reason, BaseException) else error)
        if deadline.passed:
            said, advice = f"it took longer than {deadline.seconds:g} seconds", "the same command goes on from there"
        raise ForgetlessError(f"{url} cannot be had: {said}; {advice}.") from error


def _fill(url: str, part: Path, deadline: _Deadline, on_bytes: Callable[[int, int | None], None]) -> None:
    """Get what `part` lacks."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with _had(url, deadline):
        try:
            answer = deadline.opener().open(request, timeout=_WAIT)
        except urllib.error.HTTPError as error:
            error.close()  # it is an answer too, and holds its connection
            if error.code == 416 and have:
                if (error.headers.get("Content-Range") or "").endswith(f"/{have}"):
                    return  # all of it is there
                part.unlink()
                return _fill(url, part, deadline, on_bytes)
            why = f"{error.code} {brief(Exception(error.reason))}"
            raise ForgetlessError(f"{url} cannot be had: the host answers {why}.") from error
    with answer:
        if answer.status not in (200, 206):
            raise ForgetlessError(f"{url} cannot be had: the host answers {answer.status}.")
        if (coding := answer.headers.get("Content-Encoding", "identity")) != "identity":
            raise ForgetlessError(f"{url} cannot be had: the host sends it encoded as {quoted(coding)}.")
        if answer.status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise ForgetlessError(f"{url} answers with another part than was asked for; remove {part} and try again.")
        have = have if answer.status == 206 else 0  # a host that cannot continue sends all of it
        _copy(answer, part, have, _whole(answer, have, part, url), url, deadline, on_bytes)


def _size(part: Path) -> int:
    """How much of a file an earlier attempt left."""
    try:
        found = os.lstat(part)
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(found.st_mode):
        raise ForgetlessError(f"{part} is in the way: it is not a regular file; remove it.")
    return found.st_size


def _whole(answer: Any, have: int, part: Path, url: str) -> int | None:
    """How many bytes there will be, as far as the host says."""
    length = answer.headers.get("Content-Length")
    if length is None:
        return None
    if not (length.isascii() and length.isdecimal() and len(length) < 16):
        raise ForgetlessError(f"{url} cannot be had: the host says that it has {quoted(length)} bytes.")
    whole, free = have + int(length), shutil.disk_usage(part.parent).free
    if whole > _MOST or int(length) > free:
        raise ForgetlessError(
            f"{url} has {whole} bytes: {_MOST} are the most that are downloaded, and {free} are free in {part.parent}."
        )
    return whole


def _copy(
    answer: Any,
    part: Path,
    have: int,
    whole: int | None,
    url: str,
    deadline: _Deadline,
    on_bytes: Callable[[int, int | None], None],
) -> None:
    cut: Exception | None = None  # an answer that does not say how long it is can still be cut
    with part.open("r+b" if have else "wb") as file:
        file.seek(have)
        file.truncate()
        while whole is None or have < whole:
            try:
                piece = answer.read1(_PIECE)  # what has come, so that a slow host cannot hold on to us
            except Exception as error:
                piece, cut = getattr(error, "partial", b""), error
            if not piece:
                break
            file.write(piece)
            have += len(piece)
            on_bytes(have, whole)
            if have > _MOST:
                raise ForgetlessError(f"{url} sends more than {_MOST} bytes, the most that are downloaded.")
    if deadline.passed or cut or (whole is not None and have < whole):
        so_far = f"{have} bytes" if whole is None else f"{have} of {whole} bytes"
        why = f", after {deadline.seconds:g} seconds" if deadline.passed else ""
        raise ForgetlessError(
            f"{url} was cut off after {so_far}{why}; the same command goes on from there ({part})."
        ) from cut


def _checked(path: Path, source: Source, *, remove: bool = False) -> str:
    """The SHA-256 of a file whose published checksum is right."""
    kind, _, expected = (source.checksum or "sha256:").partition(":")
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in {kind, "sha256"}}
    with files.opened(path) as file:
        while piece := file.read(_PIECE):
            for digest in digests.values():
                digest.update(piece)
    found = digests[kind].hexdigest()
    if expected and found != expected:
        what = "it was removed; try again" if remove else "remove it to download it again"
        if remove:
            path.unlink()
        raise ForgetlessError(
            f"{path} is not the file that was published: its {kind.upper()} is {found} and not {expected}; {what}."
        )
    return digests["sha256"].hexdigest()
