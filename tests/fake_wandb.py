"""As much of W&B's service as making a report needs, on this machine: it answers, and keeps what it was asked."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VIEWER = {"id": "1", "username": "me", "entity": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
PROJECT = {"id": "1", "internalId": "1", "name": "evohydra", "entityName": "me"}
TIME = "2026-01-01T00:00:00"


class _Service(BaseHTTPRequestHandler):
    asked: list[dict[str, Any]]

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def do_POST(self) -> None:  # noqa: N802: the name that the library wants
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer: dict[str, Any] = {}
        if self.path == "/graphql":
            request = json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
            self.asked.append(request)
            answer = {"data": self._data(request["query"], request.get("variables") or {})}
        packed = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(packed)))
        self.end_headers()
        self.wfile.write(packed)

    @staticmethod
    def _data(query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "upsertView" in query:
            view = {"id": "Vmlldzox", "type": "runs", "name": variables["name"], "spec": variables["spec"],
                    "displayName": variables["displayName"], "description": variables["description"],
                    "project": PROJECT, "createdAt": TIME, "updatedAt": TIME, "previewUrl": None, "viewCount": 1,
                    "user": {"id": "1", "username": "me", "name": "me", "photoUrl": ""}}  # fmt: skip
            return {"upsertView": {"view": view, "inserted": True}}
        if "upsertModel" in query:
            return {"upsertModel": {"model": PROJECT, "project": PROJECT, "inserted": True}}
        if "GetProjects" in query:
            return {"models": {"edges": [], "pageInfo": {"endCursor": None, "hasNextPage": False}}}
        if "viewer" in query.lower():
            return {"viewer": VIEWER, "serverInfo": {"cliVersionInfo": {"max_cli_version": "99"}}}
        return {"project": PROJECT}


@contextmanager
def fake_service() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its address, and the GraphQL requests that it gets."""
    asked: list[dict[str, Any]] = []
    handler = type("Service", (_Service,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
