"""The part of the Hub's HTTP interface that a push uses, on this machine; it keeps every request it was sent."""

from __future__ import annotations

import base64
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    """One request, as bytes came over the wire."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FakeHub:
    """
    A server on localhost that answers as the Hub does.

    Attributes:
        requests: Every request, in order.
        repos: Repositories that exist: name -> visibility.
        failing: (part of a path, status): requests that are refused.
    """

    requests: list[Request] = field(default_factory=list)
    repos: dict[str, str] = field(default_factory=dict)
    failing: tuple[str, int] | None = None

    def __enter__(self) -> FakeHub:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, self.path, dict(self.headers), body)
                hub.requests.append(request)
                status, answer = hub.answer(request)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = _serve

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: Request) -> tuple[int, Any]:
        path = request.path.partition("?")[0]
        if self.failing is not None and self.failing[0] in path:
            return self.failing[1], {"error": "so says\nthe server"}
        if path == "/api/repos/create":
            asked = request.json()
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.repos:
                return 409, {"error": "You already created this model repo", "url": f"{self.endpoint}/{name}"}
            self.repos[name] = asked.get("visibility", "public")
            return 200, {"url": f"{self.endpoint}/{name}", "name": name, "id": "0"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(preupload|commit|branch)/(.+))?", path)
        if found is None or found[1] not in self.repos:
            return 404, {"error": "Repository not found"}
        if found[2] is None:
            private = self.repos[found[1]] == "private"
            return 200, {"id": found[1], "modelId": found[1], "private": private, "sha": "0" * 40, "tags": []}
        if found[2] == "preupload":
            names = [file["path"] for file in request.json()["files"]]
            return 200, {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
        if found[2] == "commit":
            address = f"{self.endpoint}/{found[1]}/commit/{'1' * 40}"
            return 200, {"success": True, "commitOid": "1" * 40, "commitUrl": address, "hookOutput": ""}
        return 200, {}

    def commits(self) -> list[tuple[str, dict[str, Any], dict[str, bytes]]]:
        """Address, header (message) and files of each commit."""
        found = []
        for request in self.requests:
            if "/commit/" not in request.path:
                continue
            lines = [json.loads(line) for line in request.body.splitlines()]
            (header,) = [line["value"] for line in lines if line["key"] == "header"]
            files = [line["value"] for line in lines if line["key"] == "file"]
            assert all(file["encoding"] == "base64" for file in files)
            found.append((request.path, header, {f["path"]: base64.b64decode(f["content"]) for f in files}))
        return found
