"""A Hugging Face Hub on loopback: the part of its HTTP protocol that loading and pushing a model need.

The answers are those that the real Hub gives: codes, the headers `X-Error-Code`, `X-Repo-Commit` and `X-Linked-Etag`,
signed addresses of another host for large files, which must be asked for without a token. Faults can be laid in.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from huggingface_hub import ModelCard

from .hub_repos import Blob, Repo, is_large

REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
REVISION = r"(?P<revision>[^/]+)"


@dataclass
class Fault:
    """What goes wrong with the requests whose "METHOD /path" the pattern finds.

    Attributes:
        pattern: regular expression.
        times: how many requests it meets; None for all.
        status, body, headers: the answer instead of the right one.
        cut: how many bytes of the right body are sent before the connection ends.
        reset: it ends with a reset instead of a close.
        hang: it stays open and silent until the server is closed; `hanging` is set once it does.
        before: called before the answer is made.
    """

    pattern: str
    times: int | None = None
    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    reset: bool = False
    hang: bool = False
    before: Callable[[], object] | None = None
    hanging: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    method: str
    path: str
    headers: Message


class HubServer:
    """A Hub that lives as long as its `with` block.

    Attributes:
        endpoint: what HF_ENDPOINT is to be.
        tokens: token → user; a user may write to repositories of that name only.
        repos: "owner/name" → Repo.
        large: SHA-256 → content of the large files that were uploaded.
        faults: looked through in order at every request.
        asked: all requests, in order.
    """

    def __init__(self) -> None:
        self.tokens = {"hf_owner": "org", "hf_reader": "reader"}
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.closing = threading.Event()
        self.lock = threading.RLock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self._http.daemon_threads = True
        port = self._http.server_address[1]
        # Large files lie elsewhere, as with the real Hub: a client must not send its token there.
        self.endpoint, self.storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    def add(self, repo_id: str, files: Mapping[str, bytes] | None = None, branch: str = "main", **options: bool) -> str:
        """Commits files to a repository, which is made if need be, and returns the commit."""
        with self.lock:
            repo = self.repos.setdefault(repo_id, Repo(repo_id.split("/")[0], **options))
            blobs = {name: Blob(data, is_large(name, len(data))) for name, data in (files or {}).items()}
            self.large.update({blob.sha256: blob.data for blob in blobs.values() if blob.lfs})
            return repo.commit(blobs, "by the test", branch)

    def paths(self, method: str, part: str = "") -> list[str]:
        return [asked.path for asked in self.asked if asked.method == method and part in asked.path]

    def fault_for(self, request: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times != 0 and re.search(fault.pattern, request):
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = ""):
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    """One connection; every route is a method named in `ROUTES`."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET

    def _serve(self) -> None:
        self.split = urlsplit(self.path)
        self.sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            self.sent = b"".join(iter(self._chunk, b""))
        self.hub.asked.append(Asked(self.command, self.path, self.headers))
        self.fault = self.hub.fault_for(f"{self.command} {self.path}")
        if self.fault is not None and self.fault.before is not None:
            self.fault.before()
        if self.fault is not None and self.fault.status is not None:
            return self._answer(self.fault.status, self.fault.body, self.fault.headers)
        for method, pattern, name in ROUTES:
            found = re.fullmatch(pattern, self.split.path)
            if found and self.command in method.split():
                try:
                    with self.hub.lock:
                        self.user = self._user()
                        status, body, headers = getattr(self, name)(**found.groupdict())
                except _Refused as refused:
                    headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
                    status, body = refused.status, {"error": refused.message}
                    headers = {key: value for key, value in headers.items() if value}
                return self._answer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)
        self._answer(404, b'{"error": "no such page"}', {})

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline().split(b";")[0], 16))
        self.rfile.readline()
        return data

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        fault = self.fault
        if self.command == "HEAD":
            return
        if fault is None or (fault.cut is None and not fault.hang):
            self.wfile.write(body)
            return
        self.wfile.write(body[: fault.cut])
        self.wfile.flush()
        if fault.hang:
            fault.hanging.set()
            self.hub.closing.wait()
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    def _user(self) -> str | None:
        given = self.headers.get("Authorization")
        if given is None:
            return None
        user = self.hub.tokens.get(given.removeprefix("Bearer "))
        if user is None and not self.split.path.startswith("/storage/"):
            raise _Refused(401, message="Invalid credentials in Authorization header")
        return user

    def _repo(self, repo_id: str, write: bool = False, content: bool = False) -> Repo:
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.private and self.user != repo.owner):
            raise _Refused(401 if self.user is None else 404, "RepoNotFound", "Repository not found")
        if content and repo.gated and self.user != repo.owner:
            raise _Refused(401 if self.user is None else 403, "GatedRepo", "Access to this model is restricted.")
        if write and self.user is None:
            raise _Refused(401, message="Invalid username or password.")
        if write and self.user != repo.owner:
            raise _Refused(403, message="you must have write access")
        return repo

    def _commit_of(self, repo: Repo, revision: str) -> str:
        commit = repo.resolve(unquote(revision))
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def whoami(self) -> tuple:
        if self.user is None:
            raise _Refused(401, message="Invalid username or password.")
        return 200, {"type": "user", "name": self.user, "fullname": self.user, "orgs": []}, {}

    def harnesses(self) -> tuple:
        return 200, {"standardEnvVars": [], "harnesses": {}}, {}

    def create_repo(self) -> tuple:
        asked = json.loads(self.sent)
        owner = asked.get("organization") or self.user
        repo_id = f"{owner}/{asked['name']}"
        if self.user is None:
            raise _Refused(401, message="Invalid username or password.")
        if owner != self.user:
            raise _Refused(403, message=f"You don't have the rights to create a model under the namespace {owner!r}")
        url = {"url": f"{self.hub.endpoint}/{repo_id}"}
        if repo_id in self.hub.repos:
            return 409, {"error": "You already created this model repo", **url}, {}
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.add(repo_id, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        return 200, url, {}

    def validate_yaml(self) -> tuple:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                ModelCard(json.loads(self.sent)["content"])
        except Exception as error:
            return 400, {"errors": [{"message": str(error)}], "warnings": []}, {}
        return 200, {"errors": [], "warnings": []}, {}

    def info(self, repo: str, revision: str = "main") -> tuple:
        found = self._repo(repo)
        commit = self._commit_of(found, revision)
        tree = found.commits[commit]
        card = ModelCard(tree["README.md"].data.decode()).data.to_dict() if "README.md" in tree else {}
        return 200, {
            "id": repo,
            "sha": commit,
            "private": found.private,
            "gated": "manual" if found.gated else False,
            "siblings": [{"rfilename": name} for name in tree],
            "tags": card.get("tags", []),
            "pipeline_tag": card.get("pipeline_tag"),
            "library_name": card.get("library_name"),
            "cardData": card,
        }, {}  # fmt: skip

    def branch(self, repo: str, revision: str) -> tuple:
        found = self._repo(repo, write=True)
        name = unquote(revision)
        if name in found.refs:
            return 409, {"error": f"Reference refs/heads/{name} already exists"}, {}
        found.refs[name] = self._commit_of(found, json.loads(self.sent or b"{}").get("startingPoint", "main"))
        return 200, {}, {}

    def preupload(self, repo: str, revision: str) -> tuple:
        found = self._repo(repo, write=True)
        tree = found.commits[self._commit_of(found, revision)]
        answers = []
        for file in json.loads(self.sent)["files"]:
            mode = "lfs" if is_large(file["path"], file["size"]) else "regular"
            known = tree.get(file["path"])
            oid = None if known is None else known.etag
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return 200, {"files": answers}, {}

    def no_xet(self, repo: str, revision: str) -> tuple:
        raise _Refused(404, message="this server has no xet storage")

    def batch(self, repo: str) -> tuple:
        self._repo(repo, write=True)
        objects = []
        for item in json.loads(self.sent)["objects"]:
            signed = f"?signature={self.sign(item['oid'])}"
            actions = {
                "upload": {"href": f"{self.hub.storage}/storage/{item['oid']}{signed}"},
                "verify": {"href": f"{self.hub.endpoint}/{repo}.git/info/lfs/verify"},
            }
            objects.append({**item, **({} if item["oid"] in self.hub.large else {"actions": actions})})
        return 200, {"transfer": "basic", "objects": objects}, {}

    def verify(self, repo: str) -> tuple:
        self._repo(repo, write=True)
        asked = json.loads(self.sent)
        if len(self.hub.large.get(asked["oid"], b"")) != asked["size"]:
            raise _Refused(400, message="no such object of that size")
        return 200, {}, {}

    def commit(self, repo: str, revision: str) -> tuple:
        found = self._repo(repo, write=True)
        self._commit_of(found, revision)
        header, files = {}, {}
        for line in self.sent.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                header = value
            elif item["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            else:
                files[value["path"]] = Blob(self.hub.large[value["oid"]], True)
        oid = found.commit(files, header["summary"], unquote(revision))
        return 200, {"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{oid}", "commitOid": oid, "success": True}, {}

    def resolve(self, repo: str, revision: str, name: str) -> tuple:
        found = self._repo(repo, content=True)
        commit = self._commit_of(found, revision)
        blob = found.commits[commit].get(unquote(name))
        if blob is None:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob.git_oid}"'}
        if not blob.lfs:
            return self._ranged(blob.data, headers)
        linked = {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.data))}
        address = f"{self.hub.storage}/storage/{blob.etag}?signature={self.sign(blob.etag)}"
        return 302, b"", {**headers, **linked, "Location": address}

    def stored(self, oid: str) -> tuple:
        if parse_qs(self.split.query).get("signature") != [self.sign(oid)] or "Authorization" in self.headers:
            raise _Refused(403, message="one signature, and no token, is what storage takes")
        if self.command == "PUT":
            if hashlib.sha256(self.sent).hexdigest() != oid:
                raise _Refused(400, message="other content than announced")
            self.hub.large[oid] = self.sent
            return 200, b"", {}
        return self._ranged(self.hub.large[oid], {"ETag": f'"{oid}"'})

    def _ranged(self, data: bytes, headers: Mapping[str, str]) -> tuple:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if found is None:
            return 200, data, headers
        start = int(found[1])
        return 206, data[start:], {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}

    def sign(self, oid: str) -> str:
        return hashlib.sha256(b"secret" + oid.encode()).hexdigest()[:16]


ROUTES = (
    ("GET", "/api/whoami-v2", "whoami"),
    ("GET", "/api/agent-harnesses", "harnesses"),
    ("POST", "/api/repos/create", "create_repo"),
    ("POST", "/api/validate-yaml", "validate_yaml"),
    ("GET", f"/api/models/{REPO}", "info"),
    ("GET", f"/api/models/{REPO}/revision/{REVISION}", "info"),
    ("POST", f"/api/models/{REPO}/branch/{REVISION}", "branch"),
    ("POST", f"/api/models/{REPO}/preupload/{REVISION}", "preupload"),
    ("POST", f"/api/models/{REPO}/commit/{REVISION}", "commit"),
    ("GET", f"/api/models/{REPO}/xet-write-token/{REVISION}", "no_xet"),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", "batch"),
    ("POST", rf"/{REPO}\.git/info/lfs/verify", "verify"),
    ("GET HEAD", f"/{REPO}/resolve/{REVISION}/(?P<name>.+)", "resolve"),
    ("GET HEAD PUT", "/storage/(?P<oid>[0-9a-f]{64})", "stored"),
)
