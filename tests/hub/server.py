"""A stand-in of the Hugging Face hub on loopback: what its clients ask, to download or upload, and what goes wrong."""

import json
import re
import sys
import threading
import time
import traceback
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.repositories import LARGE, Content, Repository

TOKEN = "hf_" + "standin" * 5  # of the one account, which has accepted the conditions of every gated repository
NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
API = rf"/api/(?P<kind>models|datasets)/{NAME}"
CHUNK = 64 * 1024


@dataclass
class Fault:
    """What goes wrong with a file: the connection is cut after `cut` bytes, the first `times` that it is asked for.

    `delay` seconds pass before each chunk; `status` is answered instead of the file, or instead of what the hub tells
    where it is the end of such an address ("/discussions"), with `message`.
    """

    cut: int | None = None
    times: int = 1
    delay: float = 0.0
    status: int | None = None
    message: str = "the server has a fault"


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    range: str | None = None


@dataclass
class Hub:
    """The repositories, the faults by the end of a file's path, and every request that came.

    role: what the token may do. uploaded: large files by their hashes, before a commit names them.
    """

    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    role: str = "write"
    uploaded: dict[str, bytes] = field(default_factory=dict)

    def add(self, repository: Repository) -> Repository:
        self.repositories[repository.kind, repository.name] = repository
        return repository

    @property
    def store(self) -> str:
        """Where large files are: another host than the hub's, to which the client sends no token."""
        return self.url.replace("127.0.0.1", "localhost")

    def files(self) -> list[str]:
        """The names of the files whose content was asked for, each as often as it was."""
        found = []
        for path in (each.path for each in self.asked if each.method == "GET"):
            if path.startswith("/lfs/") and (large := self.blob(path.removeprefix("/lfs/"))):
                found.append(large[0])
            elif "/resolve/" in path and not path.endswith(LARGE):
                found.append(path.rpartition("/")[2])
        return found

    def blob(self, sha: str) -> tuple[str, Content] | None:
        """A large file by its hash, as the store beside the hub has it."""
        for repository in self.repositories.values():
            for files in repository.commits.values():
                for name, content in files.items():
                    if content.sha256 == sha:
                        return name, content
        return None


class _RefusedError(Exception):
    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        split = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(split.query).items()}
        self.hub.asked.append(Asked(self.command, unquote(split.path), self.headers.get("Range")))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self._out_of_order(unquote(split.path))
            for pattern, handle in ROUTES.items():
                if found := re.fullmatch(pattern, split.path):
                    handle(self, **{key: unquote(value or "") for key, value in found.groupdict().items()})
                    return
            raise _RefusedError(404, None, f"no such address: {split.path}")
        except _RefusedError as refused:
            code = {"X-Error-Code": refused.code} if refused.code else {}
            self._send(
                refused.status, json.dumps({"error": str(refused)}).encode(), {**code, "X-Error-Message": str(refused)}
            )
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _out_of_order(self, path: str) -> None:
        """Faults of the hub's answers, and a token that is nobody's, which the hub refuses for public models too."""
        if path.startswith("/api/"):
            for end, fault in self.hub.faults.items():
                if path.endswith(end) and fault.status and fault.times > 0:
                    fault.times -= 1
                    raise _RefusedError(fault.status, None, fault.message)
            if self.headers.get("Authorization") and not self._login():
                raise _RefusedError(401, None, "Invalid credentials in Authorization header")

    def _known(self, kind: str, name: str) -> Repository:
        repository = self.hub.repositories.get((kind, name))
        if repository is None:  # the hub does not tell strangers whether a repository is private or not there at all
            raise (
                _RefusedError(404, "RepoNotFound", "Repository not found")
                if self._login()
                else _RefusedError(401, "RepoNotFound", "Invalid username or password.")
            )
        return repository

    def _login(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.resolved(revision)
        if commit is None:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def search(self, kind: str) -> None:
        wanted, author = self.query.get("search", "").lower(), self.query.get("author")
        found = [
            {"id": name, "modelId": name, "private": False, "tags": []}
            for (type_, name) in self.hub.repositories
            if type_ == kind and wanted in name.lower() and author in (None, name.split("/")[0])
        ]
        self._json(found[: int(self.query.get("limit", 100))])

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        repository = self._known(kind, name)
        commit = self._commit(repository, revision or "main")
        files = [{"rfilename": path} for path in repository.commits[commit]]
        if self.query.get("blobs"):
            files = [
                {**e, "rfilename": p, "blobId": e["oid"]}
                for p, c in repository.commits[commit].items()
                for e in (c.entry(p),)
            ]
        self._json({
            "_id": "0", "id": name, "modelId": name, "sha": commit, "private": False, "disabled": False,
            "gated": "auto" if repository.gated else False, "tags": [], "downloads": 0, "likes": 0, "siblings": files,
            "lastModified": "2024-01-01T00:00:00.000Z", "createdAt": "2024-01-01T00:00:00.000Z", "cardData": {},
        })  # fmt: skip

    def tree(self, kind: str, name: str, revision: str, path: str = "") -> None:
        repository = self._known(kind, name)
        files = repository.commits[self._commit(repository, revision)]
        below = f"{path}/" if path else ""
        inside = {name: content for name, content in files.items() if name.startswith(below)}
        if path and not inside:
            raise _RefusedError(404, "EntryNotFound", f"{path} does not exist on {revision}")
        deep = self.query.get("recursive", "").lower() == "true"
        folders = {below + rest.split("/")[0] for n in inside if "/" in (rest := n.removeprefix(below))}
        entries: list[dict[str, object]] = [
            {"type": "directory", "path": f, "size": 0, "oid": "0" * 40} for f in sorted(folders)
        ]
        entries += [c.entry(n) for n, c in inside.items() if deep or "/" not in n.removeprefix(below)]
        self._json(entries)

    def paths_info(self, kind: str, name: str, revision: str) -> None:
        repository = self._known(kind, name)
        files = repository.commits[self._commit(repository, revision)]
        asked = parse_qs(self.body.decode())
        if self.headers.get("Content-Type", "").startswith("application/json"):
            asked = json.loads(self.body)
        found = []
        for path in asked["paths"]:
            if path in files:
                found.append(files[path].entry(path))
            elif any(each.startswith(f"{path}/") for each in files):
                found.append({"type": "directory", "path": path, "size": 0, "oid": "0" * 40})
        self._json(found)

    def refs(self, kind: str, name: str) -> None:
        repository = self._known(kind, name)
        refs = [(r, c) for r, c in repository.refs.items()]
        listed = [{"name": r, "ref": f"refs/heads/{r}", "targetCommit": c} for r, c in refs if "/" not in r]
        pulls = [{"name": r, "ref": r, "targetCommit": c} for r, c in refs if r.startswith("refs/pr/")]
        extra = {"pullRequests": pulls} if self.query.get("include_prs") else {}
        self._json({"branches": listed, "converts": [], "tags": [], **extra})

    def whoami(self) -> None:
        if not self._login():
            raise _RefusedError(401, None, "Invalid credentials in Authorization header")
        token = {"displayName": "stand-in", "role": self.hub.role}
        self._json({"name": "somebody", "type": "user", "auth": {"accessToken": token}, "orgs": []})

    def _may_write(self) -> None:
        if not self._login() or self.hub.role == "read":
            raise _RefusedError(403, None, "You don't have the rights to write")

    def create(self) -> None:
        self._may_write()
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        told, known = {"url": f"{self.hub.url}/{name}"}, ("models", name) in self.hub.repositories
        if known:
            told["error"] = "You already created this model repo"
        else:
            self.hub.add(Repository(name, private=asked.get("visibility") == "private")).commit({})
        self._send(409 if known else 200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def valid(self) -> None:
        assert json.loads(self.body)["content"].startswith("---\n")
        self._json({"errors": [], "warnings": []})

    def upload_modes(self, kind: str, name: str, revision: str) -> None:
        self._may_write()
        files = [each["path"] for each in json.loads(self.body)["files"]]
        modes = [(path, "lfs" if path.endswith(LARGE) else "regular") for path in files]
        self._json({"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]})

    def batch(self, name: str) -> None:
        self._may_write()
        place = f"{self.hub.store}/put/"
        objects = [
            {**each, "actions": {"upload": {"href": place + each["oid"]}}} for each in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def put(self, sha: str) -> None:
        assert Content(self.body).sha256 == sha
        self.hub.uploaded[sha] = self.body
        self._send(200, b"", {})

    def add_commit(self, kind: str, name: str, revision: str) -> None:
        self._may_write()
        repository = self._known(kind, name)
        files = {path: content.source for path, content in repository.commits[repository.refs["main"]].items()}
        for line in map(json.loads, self.body.splitlines()):
            told = line["value"]
            if line["key"] == "file":
                files[told["path"]] = b64decode(told["content"])
            elif line["key"] == "lfsFile":
                files[told["path"]] = self.hub.uploaded[told["oid"]]
        made = repository.commit(files)
        self._json({"success": True, "commitOid": made, "commitUrl": f"{self.hub.url}/{name}/commit/{made}"})

    def auth_check(self, kind: str, name: str) -> None:
        if self._known(kind, name).gated and not self._login():
            raise _RefusedError(401, "GatedRepo", f"Access to {name} is restricted. You must be authenticated.")
        self._json({})

    def commits(self, kind: str, name: str, revision: str) -> None:
        repository = self._known(kind, name)
        found, at = [], self._commit(repository, revision)
        while at:
            found.append({"id": at, "title": "", "message": "", "authors": [], "date": "2024-01-01T00:00:00.000Z"})
            at = repository.history[at] or ""
        self._json(found if int(self.query.get("p", 0)) == 0 else [])

    def discussions(self, kind: str, name: str) -> None:
        repository = self._known(kind, name)
        wanted, author = self.query.get("status"), self.query.get("author")
        found = [
            {"num": each.number, "title": each.title, "author": {"name": each.author}, "status": each.status,
             "isPullRequest": True, "createdAt": "2024-01-01T00:00:00.000Z",
             "repo": {"name": name, "type": kind.removesuffix("s")}}
            for each in repository.requests
            if wanted in (None, "all", each.status) and author in (None, each.author)
        ]  # fmt: skip
        self._json({"discussions": found, "count": len(found), "start": 0})

    def resolve(self, name: str, revision: str, path: str, datasets: str = "") -> None:
        repository = self._known("datasets" if datasets else "models", name)
        commit = self._commit(repository, revision)
        if repository.gated and not self._login():
            raise _RefusedError(
                401, "GatedRepo", f"Access to {name} is restricted. You must be authenticated to access it."
            )
        content = repository.commits[commit].get(path)
        if content is None:
            raise _RefusedError(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{content.etag(path)}"'}
        if "lfs" not in content.entry(path):
            self._file(path, content, headers)
            return
        linked = {"X-Linked-Etag": f'"{content.sha256}"', "X-Linked-Size": str(len(content.data))}
        self._send(302, b"", {**headers, **linked, "Location": f"{self.hub.store}/lfs/{content.sha256}"})

    def large(self, sha: str) -> None:
        found = self.hub.blob(sha)
        if found is None:
            raise _RefusedError(403, None, "no such object")
        self._file(*found, {"ETag": f'"{sha}"'})

    def _file(self, path: str, content: Content, headers: Mapping[str, str]) -> None:
        fault = next((f for end, f in self.hub.faults.items() if path.endswith(end) and f.times > 0), None)
        data, status = content.data, 200
        if fault and fault.status:
            raise _RefusedError(fault.status, None, "the server has a fault")
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(found[1]), int(found[2] or len(data) - 1)
            headers = {**headers, "Content-Range": f"bytes {start}-{end}/{len(data)}"}
            data, status = data[start : end + 1], 206
        if fault is None or self.command == "HEAD":
            self._send(status, data, {**headers, "Accept-Ranges": "bytes"})
            return
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if fault.cut is not None:
            fault.times -= 1
            data = data[: fault.cut]
            self.close_connection = True
        for start in range(0, len(data), CHUNK):
            time.sleep(fault.delay)
            self.wfile.write(data[start : start + CHUNK])
        self.wfile.flush()

    def _json(self, data: object) -> None:
        self._send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


ROUTES: dict[str, Callable[..., None]] = {
    r"/api/(?P<kind>models|datasets)": _Handler.search,
    r"/api/whoami-v2": _Handler.whoami,
    r"/api/repos/create": _Handler.create,
    r"/api/validate-yaml": _Handler.valid,
    rf"{API}/preupload/(?P<revision>[^/]+)": _Handler.upload_modes,
    rf"{API}/commit/(?P<revision>[^/]+)": _Handler.add_commit,
    rf"/{NAME}\.git/info/lfs/objects/batch": _Handler.batch,
    r"/put/(?P<sha>[0-9a-f]{64})": _Handler.put,
    API: _Handler.info,
    rf"{API}/revision/(?P<revision>[^/]+)": _Handler.info,
    rf"{API}/tree/(?P<revision>[^/]+)(/(?P<path>.+))?": _Handler.tree,
    rf"{API}/paths-info/(?P<revision>[^/]+)": _Handler.paths_info,
    rf"{API}/auth-check": _Handler.auth_check,
    rf"{API}/refs": _Handler.refs,
    rf"{API}/commits/(?P<revision>[^/]+)": _Handler.commits,
    rf"{API}/discussions": _Handler.discussions,
    rf"/(?P<datasets>datasets/)?{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)": _Handler.resolve,
    r"/lfs/(?P<sha>[0-9a-f]{64})": _Handler.large,
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that went away
            traceback.print_exc()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve on a free port of loopback until the block ends."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with _Server(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
