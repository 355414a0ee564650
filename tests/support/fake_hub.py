"""A Hugging Face Hub on this machine, with as much of its protocol as fetching and pushing small files needs."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_a_test"


class FakeHub(ThreadingHTTPServer):
    """Repositories in memory; whoever sends `TOKEN` is logged in.

    Attributes:
        repos: "owner/name" → branch → file → its bytes.
        private: repositories that only a login sees.
        gated: repositories whose files nobody may have.
        readonly: repositories that no login may write to.
        commits: (repository, branch, message) of what was pushed.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.readonly: set[str] = set()
        self.commits: list[tuple[str, str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        owner, name, *rest = self.path.strip("/").split("/")
        if len(rest) != 3 or rest[0] != "resolve":
            return self.say(404)
        repo, (_, revision, file) = f"{owner}/{name}", rest
        if repo not in self.server.repos or (repo in self.server.private and not self.known()):
            return self.say(401 if not self.known() else 404, "RepoNotFound")
        if repo in self.server.gated:
            return self.say(403, "GatedRepo")
        branches = self.server.repos[repo]
        branch = next((each for each in branches if revision in (each, commit_of(branches[each]))), None)
        if branch is None:
            return self.say(404, "RevisionNotFound")
        if file not in branches[branch]:
            return self.say(404, "EntryNotFound", commit_of(branches[branch]))
        content = branches[branch][file]
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit_of(branches[branch]))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
        return None

    def do_POST(self) -> None:
        hub, body = self.server, self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if not self.known():
            return self.say(401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if repo in hub.readonly:
                return self.say(403)
            if repo in hub.repos:
                return self.answer({"url": f"{hub.url}/{repo}"}, 409)
            hub.repos[repo] = {"main": {}}
            hidden = asked.get("private") or asked.get("visibility") == "private"
            hub.private |= {repo} if hidden else set()
            return self.answer({"url": f"{hub.url}/{repo}"})
        _, _, owner, name, what, branch = self.path.split("/")[1:] if self.path.count("/") == 6 else [""] * 6
        branches = hub.repos.get(f"{owner}/{name}", {})
        if what == "branch":
            branches[branch] = dict(branches["main"])
            return self.answer({})
        if branch not in branches:
            return self.say(404, "RevisionNotFound")
        if what == "preupload":
            paths = [each["path"] for each in json.loads(body)["files"]]
            files = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            return self.answer({"files": files})
        lines = [json.loads(line) for line in body.splitlines()]
        for line in lines:
            if line["key"] == "file":
                branches[branch][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        hub.commits.append((f"{owner}/{name}", branch, lines[0]["value"]["summary"]))
        oid = commit_of(branches[branch])
        return self.answer({"commitOid": oid, "commitUrl": f"{hub.url}/{owner}/{name}/commit/{oid}"})

    def known(self) -> bool:
        return self.headers["Authorization"] == f"Bearer {TOKEN}"

    def say(self, status: int, code: str = "", commit: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, found: Any, status: int = 200) -> None:
        content = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        return


def commit_of(files: dict[str, bytes]) -> str:
    """The commit that a branch with these files is at."""
    digest = hashlib.sha1()
    for name, content in sorted(files.items()):
        digest.update(name.encode() + content)
    return digest.hexdigest()


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A hub that answers inside."""
    hub = FakeHub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
