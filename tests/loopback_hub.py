"""A small Hub on loopback, for the real clients to talk to: repositories, commits, large files, downloads.

It keeps everything in memory. `HF_ENDPOINT` points clients to it; what they need of the Hub's HTTP interface is here,
and what they ask beyond it is answered with 404, which fails a test.
"""

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE = (".safetensors", ".parquet", ".npy")
MAX_REGULAR = 1_000_000  # bytes beyond which any file is stored as a large one


class Repository:
    """Commits of one repository: each a mapping of paths to contents' SHA-256."""

    def __init__(self):
        self.commits: dict[str, dict[str, str]] = {}
        self.branches: dict[str, str] = {}
        self.messages: list[str] = []
        self.commit("main", {}, "initial commit")

    def commit(self, branch: str, tree: dict[str, str], message: str) -> str:
        number = hashlib.sha1(f"{len(self.commits)} {branch} {sorted(tree.items())}".encode()).hexdigest()
        self.commits[number], self.branches[branch] = dict(tree), number
        self.messages.append(message)
        return number

    def find(self, revision: str) -> str | None:
        """The commit that a branch or a commit's number names."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class LoopbackHub(ThreadingHTTPServer):
    """The server; `with LoopbackHub() as hub:` runs it in a thread.

    Args:
        tokens (`dict[str, str]`): what each token may do, `"write"` or `"read"`.
        user (`str`): whose the tokens are.
    """

    daemon_threads = True

    def __init__(self, tokens: dict[str, str] | None = None, user: str = "tester"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.tokens = {"hf_writer": "write", "hf_reader": "read"} if tokens is None else tokens
        self.user = user
        self.repositories: dict[str, Repository] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()  # whose files nobody may read who hasn't asked for access
        self.contents: dict[str, bytes] = {}  # by SHA-256
        self.requests: Counter = Counter()  # by method and kind
        self.uploading = threading.Event()  # set when a large upload has begun
        self.stalled = False  # whether large uploads are never answered
        self.lock = threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()

    def environment(self, home, token: str | None = "hf_writer") -> dict[str, str]:
        """What a client process needs to talk to this Hub, with a cache in `home`."""
        variables = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        variables |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
        return variables | ({"HF_TOKEN": token} if token else {})

    def store(self, content: bytes) -> str:
        number = hashlib.sha256(content).hexdigest()
        self.contents[number] = content
        return number

    def add(self, repo_id: str, folder: Path) -> None:
        """A repository with a folder's files."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        tree = {path.relative_to(folder).as_posix(): self.store(path.read_bytes()) for path in files}
        self.repositories[repo_id] = Repository()
        self.repositories[repo_id].commit("main", tree, "everything")

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """A revision's files."""
        repository = self.repositories[repo_id]
        tree = repository.commits[repository.find(revision)]
        return {path: self.contents[number] for path, number in tree.items()}


def is_large(path: str, size: int) -> bool:
    return path.endswith(LARGE) or size > MAX_REGULAR


def blob_id(content: bytes) -> str:
    """git's number of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackHub

    ROUTES = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/models/(?P<repo>(?:datasets/)?[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", r"/api/models/(?P<repo>(?:datasets/)?[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", r"/api/models/(?P<repo>(?:datasets/)?[^/]+/[^/]+)/branch/(?P<revision>[^/]+)", "branch"),
        ("POST", r"/api/models/(?P<repo>(?:datasets/)?[^/]+/[^/]+)/paths-info/(?P<revision>[^/]+)", "paths_info"),
        (
            "GET",
            r"/api/models/(?P<repo>(?:datasets/)?[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(?:/(?P<folder>.*))?",
            "tree",
        ),
        ("GET", r"/api/models/(?P<repo>(?:datasets/)?[^/]+/[^/]+?)(/revision/(?P<revision>[^/]+))?", "info"),
        ("POST", r"/(?P<repo>(?:datasets/)?[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/large/(?P<number>[0-9a-f]{64})", "upload"),
        ("POST", r"/verify", "verify"),
        ("GET", r"/large/(?P<number>[0-9a-f]{64})", "large"),
        ("GET", r"/(?P<repo>(?:datasets/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def do_GET(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else self.chunks()
        # datasets are repositories whose names begin so; `/api/datasets/x/y` is what `/api/models/x/y` is for models
        path = re.sub("^/api/datasets/", "/api/models/datasets/", urlsplit(self.path).path)
        method = "GET" if self.command == "HEAD" else self.command
        for verb, pattern, name in self.ROUTES:
            match = re.fullmatch(pattern, path) if verb == method else None
            if match:
                self.server.requests[f"{self.command} {name}"] += 1
                found = {key: unquote(value) for key, value in match.groupdict().items() if value}
                with self.server.lock:
                    getattr(self, name)(**found)
                return
        self.server.requests[f"unknown {self.command} {path}"] += 1
        self.problem(404, "", f"no route {self.command} {path}")

    do_HEAD = do_POST = do_PUT = do_GET

    def chunks(self) -> bytes:
        """A body in chunked encoding."""
        parts = []
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(parts)

    def log_message(self, *args):
        pass

    # Answers

    def answer(self, content, status: int = 200, **headers) -> None:
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers.setdefault("Content_Type", "application/json")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def problem(self, status: int, code: str, message: str, **more) -> None:
        self.answer({"error": message, **more}, status, X_Error_Code=code, X_Error_Message=message)

    def right(self) -> str | None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return self.server.tokens.get(token) if scheme == "Bearer" else None

    def may_write(self) -> bool:
        right = self.right()
        if right != "write":
            self.problem(401 if right is None else 403, "", "you don't have the rights to write here")
        return right == "write"

    def found(self, repo: str, revision: str = "main") -> tuple[Repository | None, str | None]:
        """A repository that exists and may be read, and the revision's commit; or the answer that it doesn't."""
        repository = self.server.repositories.get(repo)
        if repository is None or (repo in self.server.private and self.right() is None):
            self.problem(401 if self.right() is None else 404, "RepoNotFound", "Repository not found")
            return None, None
        commit = repository.find(revision)
        if commit is None:
            self.problem(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    def entry(self, path: str, number: str) -> dict:
        content = self.server.contents[number]
        entry = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
        if is_large(path, len(content)):
            entry["lfs"] = {"oid": number, "size": len(content), "pointerSize": 130}
        return entry

    # Routes

    def whoami(self):
        if self.right():
            self.answer({"type": "user", "name": self.server.user, "orgs": [], "auth": {"type": "access_token"}})
        else:
            self.problem(401, "", "Invalid user token")

    def validate_yaml(self):
        """The rules of the Hub's metadata that a model card of ours could break."""
        content = json.loads(self.body)["content"]
        match = re.match(r"---\n(.*?)\n---", content, re.DOTALL)
        problems = []
        metadata = yaml.safe_load(match[1]) if match else {}
        if not isinstance(metadata, dict):
            problems, metadata = ["metadata is no mapping"], {}
        for name in ("library_name", "pipeline_tag", "license"):
            if name in metadata and not isinstance(metadata[name], str):
                problems.append(f'"{name}" must be a string')
        for name in ("tags", "datasets"):
            if name in metadata and not all(isinstance(value, str) for value in metadata[name]):
                problems.append(f'"{name}" must be a list of strings')
        for name in metadata.get("datasets", ()):
            if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
                problems.append(f'"datasets" holds {name}, which is no id')
        for model in metadata.get("model-index", ()):
            if not isinstance(model.get("name"), str) or not model["name"]:
                problems.append('"model-index[0].name" is required')
            for result in model.get("results", ()):
                task, dataset = result.get("task", {}), result.get("dataset", {})
                if not isinstance(task.get("type"), str):
                    problems.append('"task.type" is required')
                if not all(isinstance(dataset.get(name), str) for name in ("name", "type")):
                    problems.append('"dataset.name" and "dataset.type" are required')
                for metric in result.get("metrics", ()):
                    if not isinstance(metric.get("type"), str) or "value" not in metric:
                        problems.append('"metrics" need type and value')
        self.answer({"errors": [{"message": text} for text in problems], "warnings": []}, 400 if problems else 200)

    def create(self):
        if not self.may_write():
            return
        asked = json.loads(self.body)
        repo = f"{asked.get('organization') or self.server.user}/{asked['name']}"
        kind = "datasets/" if asked.get("type") == "dataset" else ""
        if not repo.startswith(f"{self.server.user}/"):
            self.problem(403, "", f"you can't create a model under the namespace {repo.split('/')[0]}")
            return
        url = f"{self.server.endpoint}/{kind}{repo}"
        if kind + repo in self.server.repositories:
            self.problem(409, "", "You already created this model repo", url=url, id=repo)
            return
        self.server.repositories[kind + repo] = Repository()
        if asked.get("private") or asked.get("visibility") == "private":
            self.server.private.add(kind + repo)
        self.answer({"url": url, "id": repo, "name": repo})

    def preupload(self, repo, revision):
        repository, commit = self.found(repo, revision)
        if commit is None or not self.may_write():
            return
        files = []
        for file in json.loads(self.body)["files"]:
            kind = "lfs" if is_large(file["path"], file["size"]) else "regular"
            number = repository.commits[commit].get(file["path"])
            known = {} if number is None else {"oid": self.entry(file["path"], number)["oid"]}
            if number and kind == "lfs":
                known = {"oid": number}
            files.append({"path": file["path"], "uploadMode": kind, "shouldIgnore": False, **known})
        self.answer({"files": files})

    def batch(self, repo):
        if self.found(repo)[0] is None or not self.may_write():
            return
        objects = []
        for asked in json.loads(self.body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.server.contents:
                upload = {"href": f"{self.server.endpoint}/large/{asked['oid']}"}
                entry["actions"] = {"upload": upload, "verify": {"href": f"{self.server.endpoint}/verify"}}
            objects.append(entry)
        self.answer({"transfer": "basic", "objects": objects})

    def upload(self, number):
        self.server.uploading.set()
        if self.server.stalled:
            self.close_connection = True
            self.rfile.read()  # until the client is gone
            return
        if hashlib.sha256(self.body).hexdigest() != number:
            self.problem(400, "", "the content has another SHA-256")
            return
        self.server.store(self.body)
        self.answer(b"")

    def verify(self):
        asked = json.loads(self.body)
        content = self.server.contents.get(asked["oid"])
        whole = content is not None and len(content) == asked["size"]
        self.answer({}, 200) if whole else self.problem(404, "", "the object is not there")

    def branch(self, repo, revision):
        repository, commit = self.found(repo)
        if commit is None or not self.may_write():
            return
        if revision in repository.branches:
            self.problem(409, "", "Reference already exists")
            return
        repository.branches[revision] = commit
        self.answer({})

    def commit(self, repo, revision):
        repository, commit = self.found(repo, revision)
        if commit is None or not self.may_write():
            return
        lines = [json.loads(line) for line in self.body.splitlines() if line]
        tree, message = dict(repository.commits[commit]), ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                tree[value["path"]] = self.server.store(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.server.contents:
                    self.problem(400, "", f"{value['path']} was not uploaded")
                    return
                tree[value["path"]] = value["oid"]
            elif line["key"] == "deletedFile":
                tree.pop(value["path"])
            else:
                self.problem(400, "", f"unknown operation {line['key']}")
                return
        number = repository.commit(revision, tree, message)
        url = f"{self.server.endpoint}/{repo}/commit/{number}"
        self.answer({"success": True, "commitOid": number, "commitUrl": url, "pullRequestUrl": None})

    def info(self, repo, revision="main"):
        repository, commit = self.found(repo, revision)
        if commit is not None:
            siblings = [{"rfilename": path} for path in repository.commits[commit]]
            private = repo in self.server.private
            repo_id = repo.removeprefix("datasets/")
            self.answer({"id": repo_id, "modelId": repo_id, "sha": commit, "private": private, "siblings": siblings})

    def tree(self, repo, revision, folder=""):
        """A folder's files, and folders; those below them too if asked for."""
        repository, commit = self.found(repo, revision)
        if commit is None:
            return
        start = f"{folder}/" if folder else ""
        below = {path: number for path, number in repository.commits[commit].items() if path.startswith(start)}
        entries = {path: self.entry(path, number) for path, number in below.items()}
        for path in below:
            for parent in map(str, PurePosixPath(path).parents):
                if parent.startswith(start) and parent != ".":
                    entries[parent] = {"type": "directory", "path": parent, "size": 0, "oid": blob_id(parent.encode())}
        recursive = "recursive=true" in urlsplit(self.path).query.lower()
        if folder and not entries:
            self.problem(404, "EntryNotFound", "Entry not found")
            return
        self.answer([entries[path] for path in sorted(entries) if recursive or "/" not in path[len(start) :]])

    def paths_info(self, repo, revision):
        repository, commit = self.found(repo, revision)
        if commit is not None:
            tree = repository.commits[commit]
            asked = parse_qs(self.body.decode()) if self.body[:1] != b"{" else json.loads(self.body)
            self.answer([self.entry(path, tree[path]) for path in asked["paths"] if path in tree])

    def resolve(self, repo, revision, path):
        if repo in self.server.gated:
            message = f"Access to model {repo} is restricted and you are not in the authorized list"
            self.problem(403, "GatedRepo", message)
            return
        repository, commit = self.found(repo, revision)
        if commit is None:
            return
        number = repository.commits[commit].get(path)
        if number is None:
            self.problem(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit)
            return
        content = self.server.contents[number]
        if is_large(path, len(content)):
            linked = {"X_Linked_Etag": f'"{number}"', "X_Linked_Size": str(len(content))}
            # A host of its own, as on the Hub: clients take the headers of this answer, not of what it points to
            location = f"http://localhost:{self.server.server_port}/large/{number}"
            self.answer(b"", 302, X_Repo_Commit=commit, Location=location, **linked)
        else:
            self.send_content(content, ETag=f'"{blob_id(content)}"', X_Repo_Commit=commit)

    def large(self, number):
        self.send_content(self.server.contents[number], ETag=f'"{number}"')

    def send_content(self, content: bytes, **headers) -> None:
        """All of a file, or the range that was asked for."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self.answer(content, Accept_Ranges="bytes", **headers)
            return
        start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
        described = f"bytes {start}-{end}/{len(content)}"
        self.answer(content[start : end + 1], 206, Content_Range=described, **headers)
