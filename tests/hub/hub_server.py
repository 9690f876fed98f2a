"""A stand-in of the Hub's HTTP API on this machine, for real uploads and downloads without a network."""

import base64
import hashlib
import json
import os
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class HubHandler(BaseHTTPRequestHandler):
    """As much of the Hub as up- and downloads need: large files by LFS, small ones in the commit."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body would wait 40 ms for the acknowledgement of its headers

    def answer(self, content: dict | bytes, status: int = 200, headers: dict | None = None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        self.serve_file()

    do_HEAD = do_GET

    def files(self, repo: str, revision: str) -> dict[str, bytes]:
        """Of a model's commit; none of a repository that was just created."""
        commits = self.server.models.get(repo, {})
        return commits.get(list(commits)[-1] if revision == "main" and commits else revision, {})

    def serve_file(self):
        """A file of a model's commit, at `/{repo}/resolve/{revision}/{name}`; "main" is the newest commit."""
        listed = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/?]+)\?recursive=.*", self.path)
        if listed is not None:  # several files at once are fetched by a list
            files = self.files(*listed.groups())
            entries = [{"type": "file", "path": path, "size": len(files[path]), "oid": path} for path in files]
            return self.answer(json.dumps(entries).encode())
        described = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/?]+)", self.path)
        if described is not None and (described[2] == "main" or self.files(*described.groups())):
            # huggingface_hub 1.16 takes the list from here
            siblings = [{"rfilename": path} for path in self.files(*described.groups())]
            return self.answer({"id": described[1], "sha": described[2], "siblings": siblings})
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)", self.path)
        if found is None:  # lists of files are asked for chat templates only, which there are none of
            return self.answer({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        commits = self.server.models.get(found[1])
        if commits is None:
            return self.answer({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        revision = list(commits)[-1] if found[2] == "main" else found[2]
        if revision not in commits:
            return self.answer({"error": "not found"}, 404, {"X-Error-Code": "RevisionNotFound"})
        content = commits[revision].get(found[3])
        if content is None:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": revision}
            return self.answer({"error": "not found"}, 404, headers)
        self.server.downloads.append((self.command, revision, found[3]))
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": revision}
        self.answer(content, 200, headers)

    def do_PUT(self):
        content = self.body()
        self.server.objects[hashlib.sha256(content).hexdigest()] = content
        self.answer({})

    def do_POST(self):
        server, content = self.server, self.body()
        address = f"http://127.0.0.1:{server.server_port}"
        server.authorizations.add(self.headers.get("Authorization"))
        if self.path == "/api/repos/create":
            wanted = json.loads(content)
            kind = "spaces/" if wanted.get("type") == "space" else ""
            server.created.append(wanted)
            self.answer({"url": f"{address}/{kind}{wanted['organization']}/{wanted['name']}"})
        elif self.path.endswith("/preupload/main"):
            files = json.loads(content)["files"]
            large = [file["path"].endswith((".safetensors", ".png")) for file in files]
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": None}
                for file, lfs in zip(files, large, strict=True)
            ]
            self.answer({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(content)["objects"]
            actions = [{"upload": {"href": f"{address}/store/{item['oid']}", "header": {}}} for item in wanted]
            objects = [{**item, "actions": action} for item, action in zip(wanted, actions, strict=True)]
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/main" in self.path:
            server.commits.append((self.path, [json.loads(line) for line in content.splitlines()]))
            self.answer({"success": True, "commitUrl": f"{address}/me/x/commit/1", "commitOid": "1", "hookOutput": ""})
        else:
            self.answer({"errors": [], "warnings": []})

    def log_message(self, *_): ...


@contextmanager
def serve():
    """A running server; `models` is {repo: {commit: {file name: content}}}, the rest is what it was sent."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    server.created, server.commits, server.objects, server.authorizations = [], [], {}, set()
    server.models, server.downloads = {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def environment(server, home: Path, **more: str) -> dict[str, str]:
    """Variables of a process for which this server is the Hub."""
    return {
        **os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_TOKEN": "hf_x",
        "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",  # LFS is spoken here
        **more,
    }  # fmt: skip


def received(server, path_part: str, out: Path) -> Path:
    """The files of the one commit to a repository, as the Hub would serve them."""
    (lines,) = [lines for path, lines in server.commits if path_part in path]
    out.mkdir()
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            assert value["encoding"] == "base64"
            (out / value["path"]).parent.mkdir(parents=True, exist_ok=True)
            (out / value["path"]).write_bytes(base64.b64decode(value["content"]))
        elif line["key"] == "lfsFile":
            (out / value["path"]).write_bytes(server.objects[value["oid"]])
    return out
