"""Publishing: what a stand-in of the Hub's HTTP API receives is what was meant, and it loads."""

import json
from pathlib import Path

import pytest
import yaml
from transformers import pipeline

from modeling_embinv.cli.main import main
from modeling_embinv.training.backbone import prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from tests.fresh_process import COMMAND
from tests.hub.hub_server import environment, received, serve
from tests.hub.tiny_folder import new_tiny_inverter
from tests.tiny_models import unit_vectors

ROOT = Path(__file__).parents[2]
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


@pytest.fixture
def hub():
    with serve() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory, encoder) -> Path:
    model, tokenizer = new_tiny_inverter(encoder.tokenizer), prepare_tokenizer(encoder.tokenizer)
    folder = export(model, tokenizer, tmp_path_factory.mktemp("push") / "last")
    (folder / "evaluation.json").write_text(json.dumps({"rows": ROWS}))
    return folder


@pytest.mark.slow
def test_a_pushed_folder_arrives_whole_in_one_commit_and_loads(hub, folder, fresh, tmp_path):
    """A card without results, a forgotten code file, or a commit for each file, which leaves half an update."""
    arguments = ["push", str(folder), "--repo", "me/inv", "--space", "space"]
    done = fresh.run(COMMAND, *arguments, cwd=ROOT, env=environment(hub, tmp_path / "home"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert hub.authorizations == {"Bearer hf_x"} and len(hub.commits) == 2
    assert [wanted.get("sdk") for wanted in hub.created] == [None, "gradio"]
    model = received(hub, "/models/", tmp_path / "model")
    pushed, ours = (
        pipeline("embedding-inversion", model=str(one), trust_remote_code=True, preset="quick")(unit_vectors(1)[0])
        for one in (model, folder)
    )
    assert pushed["text"] == ours["text"]
    results = yaml.safe_load((model / "README.md").read_text().split("---")[1])["model-index"][0]["results"]
    assert [(entry["dataset"]["name"], entry["metrics"][0]["value"]) for entry in results] == [
        ("held out: all parts", 13.0), ("held out: tanaka", 28.0),
    ]  # fmt: skip
    space = received(hub, "/spaces/", tmp_path / "space")
    assert {"app.py", "README.md", "requirements.txt"} <= {path.name for path in space.iterdir()}
    assert (space / "modeling_embinv" / "stores" / "vectors.py").is_file()  # the Space imports its readers
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
        (["tests", "--repo", "me/inv"], "tests is not an exported inverter; missing: config.json"),
        (["{folder}", "--repo", "inv"], "--repo must be user/name, not 'inv'"),
        (
            ["{folder}", "--repo", "me/inv", "--dry-run", "{out}", "--space", "tests"],
            "tests is not a Space; missing: app.py",
        ),
    ],
)
def test_mistakes_are_one_line(folder, tmp_path, capsys, arguments, message, monkeypatch):
    """A wrong folder must be named before anything is created on the Hub."""
    monkeypatch.chdir(ROOT)
    assert main(["push", *(word.format(folder=folder, out=tmp_path / "out") for word in arguments)]) == 2
    assert message in capsys.readouterr().err
