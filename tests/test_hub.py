"""Publishing: what a stand-in of the Hub's HTTP API receives is what was meant, and it loads."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from transformers import pipeline

from modeling_embinv.backbone import new_inverter, prepare_tokenizer
from modeling_embinv.checkpoints import export
from modeling_embinv.cli import main

from .conftest import awaken, unit_vectors
from .test_shipping import TRUNK

ROOT = Path(__file__).parent.parent
ROWS = [
    {
        "section": section,
        "name": name,
        "texts": 7,
        "scores": {"BLEU": {"mean": mean, "low": mean - 1, "high": mean + 1}},
    }
    for section, name, mean in (
        ("inversion", "inversion", 13.0),
        ("floor", "floor: random", 0.5),
        ("part", "tanaka", 28.0),
    )
]


class HubHandler(BaseHTTPRequestHandler):
    """As much of the Hub as an upload needs: large files by LFS, small ones in the commit."""

    protocol_version = "HTTP/1.1"

    def answer(self, content: dict, status: int = 200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        self.answer({"error": "not found"}, 404)

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


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    server.created, server.commits, server.objects, server.authorizations = [], [], {}, set()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, encoder) -> Path:
    tokenizer = prepare_tokenizer(encoder.tokenizer)
    torch.manual_seed(0)
    model = awaken(new_inverter(tokenizer, TRUNK, encoder_id="a/b", embedding_dim=16, max_sequence_length=12))
    folder = export(model.eval(), tokenizer, tmp_path_factory.mktemp("push") / "last")
    (folder / "evaluation.json").write_text(json.dumps({"rows": ROWS}))
    return folder


def received(server, path_part: str, out: Path) -> Path:
    """The files of the one commit to a repository, as the Hub would serve them."""
    (lines,) = [lines for path, lines in server.commits if path_part in path]
    out.mkdir()
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            assert value["encoding"] == "base64"
            (out / value["path"]).write_bytes(base64.b64decode(value["content"]))
        elif line["key"] == "lfsFile":
            (out / value["path"]).write_bytes(server.objects[value["oid"]])
    return out


def test_a_pushed_folder_arrives_whole_in_one_commit_and_loads(hub, folder, tmp_path):
    """A card without results, a forgotten code file, or a commit for each file, which leaves half an update."""
    environment = {
        **os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_TOKEN": "hf_x",
        "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",  # LFS is spoken here
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "modeling_embinv.cli",
        "push",
        str(folder),
        "--repo",
        "me/inv",
        "--space",
        "space",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert hub.authorizations == {"Bearer hf_x"} and len(hub.commits) == 2
    assert [wanted.get("sdk") for wanted in hub.created] == [None, "gradio"]
    model = received(hub, "/models/", tmp_path / "model")
    text = pipeline("embedding-inversion", model=str(model), trust_remote_code=True)(unit_vectors(1)[0])["text"]
    assert (
        text == pipeline("embedding-inversion", model=str(folder), trust_remote_code=True)(unit_vectors(1)[0])["text"]
    )
    results = yaml.safe_load((model / "README.md").read_text().split("---")[1])["model-index"][0]["results"]
    assert [(entry["dataset"]["name"], entry["metrics"][0]["value"]) for entry in results] == [
        ("held out: all parts", 13.0), ("held out: tanaka", 28.0),
    ]  # fmt: skip
    space = received(hub, "/spaces/", tmp_path / "space")
    assert {"app.py", "README.md", "requirements.txt"} <= {path.name for path in space.iterdir()}
    assert (
        "me/inv" in (space / "app.py").read_text() and "embinv/embinv-minilm" not in (space / "README.md").read_text()
    )


def test_dry_run_writes_what_would_be_sent(folder, tmp_path, capsys):
    """A dry run that shows something else than the upload is worse than none."""
    assert main(["push", str(folder), "--repo", "me/inv", "--dry-run", str(tmp_path / "out")]) == 0
    written = {path.name for path in (tmp_path / "out" / "model").iterdir()}
    assert written == {path.name for path in folder.iterdir()} | {"README.md"}
    assert "model.safetensors" in capsys.readouterr().out
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    assert "me/inv" in card and "| **inversion** | 7 | 13.0 [12.0, 14.0] |" in card


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["tests", "--repo", "me/inv"], "tests is no exported inverter: it has no config.json"),
        (["{folder}", "--repo", "inv"], "--repo must be user/name, not 'inv'"),
        (
            ["{folder}", "--repo", "me/inv", "--dry-run", "{out}", "--space", "tests"],
            "tests is no Space: it has no app.py",
        ),
    ],
)
def test_mistakes_are_one_line(folder, tmp_path, capsys, arguments, message, monkeypatch):
    """A wrong folder must be named before anything is created on the Hub."""
    monkeypatch.chdir(ROOT)
    assert main(["push", *(word.format(folder=folder, out=tmp_path / "out") for word in arguments)]) == 1
    assert message in capsys.readouterr().err
