"""A hub on this computer for tests: the few addresses of the Hugging Face hub that downloads and uploads need."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Hub:
    """The state of the server.

    repos: {"user/name": [(commit, files)]}, the newest last. tags: {("user/name", tag): commit}. private: names of
    repositories that were made private. token: the only one that may write. requests: "METHOD /path" in order. broken:
    the status with which every request is answered; 0 for none.
    """

    url: str = ""
    repos: dict[str, list[tuple[str, Files]]] = field(default_factory=dict)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    token: str = "hf_test"
    requests: list[str] = field(default_factory=list)
    broken: int = 0

    def commit(self, repo: str, files: Files, tag: str = "") -> str:
        """Add files to a repository; returns the commit."""
        held = self.repos.setdefault(repo, [])
        merged = {**(held[-1][1] if held else {}), **files}
        oid = hashlib.sha1(repr((repo, len(held), sorted(merged.items()))).encode()).hexdigest()
        held.append((oid, merged))
        if tag:
            self.tags[repo, tag] = oid
        return oid

    def at(self, repo: str, revision: str) -> tuple[str, Files] | None:
        """The commit and the files of a revision; None if there is no such revision."""
        held = self.repos[repo]
        if revision == "main":
            return held[-1]
        return next((each for each in held if each[0] == self.tags.get((repo, revision), revision)), None)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/").split("/")
        self.hub.requests.append(f"{self.command} /{'/'.join(path)}")
        if self.hub.broken:
            return self.reply(self.hub.broken)
        if path[:2] == ["api", "models"] and len(path) == 4 and (repo := "/".join(path[2:4])) in self.hub.repos:
            return self.reply(200, json.dumps({"id": repo, "private": repo in self.hub.private}).encode())
        if path[:2] == ["api", "models"]:
            return self.tree("/".join(path[2:4]), path[5] if len(path) > 5 else "main")
        if path[0] == "api":  # of no importance here
            return self.reply(404)
        user, name, _, revision, *file = path
        found = self.revision(f"{user}/{name}", revision)
        if found is None:
            return None
        commit, files = found
        data = files.get("/".join(file))
        if data is None:
            return self.reply(404, error="EntryNotFound")
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": commit}
        return self.reply(200, data, **headers)

    do_HEAD = do_GET

    def revision(self, repo: str, revision: str) -> tuple[str, Files] | None:
        """The files of a revision; None after an error was sent."""
        if repo not in self.hub.repos:
            self.reply(401, error="RepoNotFound")
            return None
        if (found := self.hub.at(repo, revision)) is None:
            self.reply(404, error="RevisionNotFound")
        return found

    def tree(self, repo: str, revision: str) -> None:
        if found := self.revision(repo, revision):
            listed = [{"type": "file", "path": k, "size": len(v), "oid": "0" * 40} for k, v in found[1].items()]
            self.reply(200, json.dumps(listed).encode())

    def do_POST(self) -> None:
        path, body = self.path.strip("/").split("/"), self.body()
        self.hub.requests.append(f"POST {self.path}")
        if self.hub.broken:
            return self.reply(self.hub.broken)
        if path[1] == "validate-yaml":
            return self.reply(200, b'{"errors": [], "warnings": []}')
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.reply(403 if self.headers.get("Authorization") else 401)
        if path[1] == "repos":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            if repo in self.hub.repos:
                return self.reply(409, json.dumps({"url": f"{self.hub.url}/{repo}"}).encode())
            self.hub.repos[repo] = []
            if asked.get("visibility") == "private" or asked.get("private"):
                self.hub.private.add(repo)
            return self.reply(200, json.dumps({"url": f"{self.hub.url}/{repo}"}).encode())
        repo = "/".join(path[2:4])
        if path[4] == "preupload":
            told = {"uploadMode": "regular", "shouldIgnore": False}  # the hub itself would choose "lfs"
            files = [{"path": each["path"], **told} for each in json.loads(body)["files"]]
            return self.reply(200, json.dumps({"files": files}).encode())
        return self.take(repo, [json.loads(line) for line in body.splitlines()])

    def take(self, repo: str, lines: list[dict[str, Any]]) -> None:
        """Make a commit of its lines."""
        files: Files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
        oid = self.hub.commit(repo, files)
        told = {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{repo}/commit/{oid}"}
        self.reply(200, json.dumps(told).encode())

    def body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def reply(self, status: int, data: bytes = b"", *, error: str = "", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *what: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    """A hub on a free port of 127.0.0.1."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
