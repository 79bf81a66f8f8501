"""A stand-in for the Hub: a small server with the part of its interface that huggingface_hub uses to push and to load."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ruamel.yaml import YAML


class StandIn:
    """The models that were made, and what was committed to them.

    Attributes:
        private: Whether each model is private, by name.
        branches: The files of each model's branches: by name, branch and path.
        messages: The messages of the commits.
        url: Where it answers.
    """

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.branches: dict[str, dict[str, dict[str, bytes]]] = {}
        self.messages: list[str] = []
        self.url = ""

    def files(self, name: str, revision: str) -> dict[str, bytes] | None:
        """The files of a branch, or of the commit that it is at."""
        branches = self.branches.get(name, {})
        return next((files for branch, files in branches.items() if revision in (branch, commit_of(name, files))), None)

    def make(self, request: dict[str, Any]) -> bool:
        """Make a model. Returns whether it is new."""
        name = f"{request.get('organization', 'me')}/{request['name']}"
        if name in self.branches:
            return False
        self.private[name], self.branches[name] = (
            request.get("visibility") == "private" or bool(request.get("private")),
            {"main": {}},
        )
        return True

    def commit(self, name: str, branch: str, lines: list[dict[str, Any]]) -> None:
        """Take up a commit."""
        for line in lines:
            if line["key"] == "header":
                self.messages.append(line["value"]["summary"])
            else:
                assert line["key"] == "file", line
                self.branches[name][branch][line["value"]["path"]] = base64.b64decode(line["value"]["content"])


def commit_of(name: str, files: dict[str, bytes]) -> str:
    digest = hashlib.sha1(name.encode())
    for path, content in sorted(files.items()):
        digest.update(path.encode() + content)
    return digest.hexdigest()


def _handler(hub: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def _answer(self, status: int, body: Any = None, headers: dict[str, str] | None = None, error: str = "") -> None:
            content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
            self.send_response(status)
            for key, value in {**({"X-Error-Code": error} if error else {}), **(headers or {})}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != "Bearer hf_right":
                return self._answer(401, {"error": "no"})
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts == ["api", "repos", "create"]:
                request = json.loads(body)
                new = hub.make(request)
                url = f"{hub.url}/{request.get('organization', 'me')}/{request['name']}"
                return self._answer(200 if new else 409, {"url": url})
            if parts == ["api", "validate-yaml"]:
                _, front, _ = json.loads(body)["content"].split("---\n", 2)
                about = YAML(typ="safe").load(front)
                wrong = [] if about["library_name"] == "ssl-dc" else [{"message": "no library"}]
                return self._answer(400 if wrong else 200, {"errors": wrong, "warnings": []})
            name, what, branch = "/".join(parts[2:4]), parts[4], parts[5]
            if what == "branch":
                if branch in hub.branches[name]:
                    return self._answer(409)
                hub.branches[name][branch] = {}
                return self._answer(200)
            if what == "preupload":
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]
                return self._answer(200, {"files": files})
            hub.commit(name, branch, [json.loads(line) for line in body.splitlines()])
            commit = commit_of(name, hub.branches[name][branch])
            return self._answer(200, {"commitUrl": f"{hub.url}/{name}/commit/{commit}", "commitOid": commit})

        def do_GET(self) -> None:
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[0] != "api":  # owner/name/resolve/REVISION/FILE
                name, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
                files = hub.files(name, revision)
                if files is None or file not in files:
                    return self._answer(404, error="EntryNotFound")
                etag = hashlib.sha1(files[file]).hexdigest()
                return self._answer(200, files[file], {"ETag": f'"{etag}"', "X-Repo-Commit": commit_of(name, files)})
            name, rest = "/".join(parts[2:4]), parts[4:]
            if name not in hub.branches:
                return self._answer(404, error="RepoNotFound")
            files = hub.files(name, rest[1] if rest else "main")
            if files is None:
                return self._answer(404, error="RevisionNotFound")
            if rest and rest[0] == "tree":
                entries = [
                    {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for path, content in files.items()
                ]
                return self._answer(200, json.dumps(entries).encode())
            siblings = [{"rfilename": path} for path in files]
            sha = commit_of(name, files)
            about = {"_id": "1", "id": name, "modelId": name, "sha": sha, "private": hub.private[name]}
            return self._answer(200, {**about, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})

        do_HEAD = do_GET  # noqa: N815

    return Handler


@contextmanager
def stand_in_hub() -> Iterator[StandIn]:
    """A stand-in that answers on this machine while the block runs."""
    hub = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
