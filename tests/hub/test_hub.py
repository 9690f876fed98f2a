"""Publishing: what a stand-in of the Hub's HTTP API receives is what was meant, and it loads."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from transformers import pipeline

from modeling_embinv import EmbInvForMaskedDiffusion
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


def test_held_out_texts_and_paths_are_not_published(folder, tmp_path):
    """The results of `embinv evaluate --out` went up with twenty held-out texts and the folder's path."""
    private = shutil.copytree(folder, tmp_path / "private")
    results = {"model": str(private), "rows": ROWS, "samples": [["Call 555-0100.", "Call."]], "calibration": {}}
    (private / "evaluation.json").write_text(json.dumps(results))
    assert main(["push", str(private), "--repo", "me/inv", "--dry-run", str(tmp_path / "out")]) == 0
    sent = json.loads((tmp_path / "out" / "model" / "evaluation.json").read_text())
    assert sent == {"model": "me/inv", "rows": ROWS, "calibration": {}}
    assert json.loads((private / "evaluation.json").read_text()) == results  # the user's own is as it was


@pytest.mark.parametrize(
    "noted, split, name, title",
    [
        ({}, "test", "held out: tanaka", "Held-out figures"),  # of an older version
        ({"split": "files of texts"}, "test", "held out: tanaka", "Held-out figures"),
        ({"split": "test"}, "test", "held out: tanaka", "Held-out figures"),
        ({"split": "validation"}, "validation", "validation: tanaka", "Figures on the validation split"),
    ],
)
def test_the_card_says_which_texts_were_scored(folder, tmp_path, noted, split, name, title):
    """Scores on the validation split, which chose the checkpoint, were published as held out, of split "test"."""
    scored = shutil.copytree(folder, tmp_path / "scored")
    (scored / "evaluation.json").write_text(json.dumps({**noted, "rows": ROWS}))
    assert main(["push", str(scored), "--repo", "me/inv", "--dry-run", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    results = yaml.safe_load(card.split("---")[1])["model-index"][0]["results"]
    assert {entry["dataset"]["split"] for entry in results} == {split}
    assert results[1]["dataset"]["name"] == name and f"\n## {title}\n" in card


def test_scores_on_training_texts_are_not_published(folder, tmp_path, capsys):
    """What a model gives back of the texts that it was trained on went up as its held-out figures."""
    scored, out = shutil.copytree(folder, tmp_path / "scored"), tmp_path / "out"
    (scored / "evaluation.json").write_text(json.dumps({"split": "train", "rows": ROWS}))
    assert main(["push", str(scored), "--repo", "me/inv", "--dry-run", str(out)]) == 2
    error = capsys.readouterr().err
    assert "evaluation.json has scores on the training split" in error and error.count("\n") == 1
    assert not (out / "model").exists()


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


@pytest.mark.slow
def test_weights_of_an_earlier_push_are_deleted(hub, folder, fresh, tmp_path):
    """A single file that stays beside new shards is what loading takes: everybody was refused, or got the old weights.

    What else a repository holds stays.
    """
    model = shutil.copytree(folder, tmp_path / "sharded")
    EmbInvForMaskedDiffusion.from_pretrained(folder).save_pretrained(model, max_shard_size="20KB")
    hub.models["me/inv"] = {"1" * 40: dict.fromkeys(["model.safetensors", "config.json", "logo.webp"], b"")}
    arguments = ["push", str(model), "--repo", "me/inv"]
    done = fresh.run(COMMAND, *arguments, cwd=ROOT, env=environment(hub, tmp_path / "home"))
    assert done.returncode == 0, done.stderr[-2000:]
    ((_, lines),) = hub.commits
    assert [line["value"]["path"] for line in lines if line["key"] == "deletedFile"] == ["model.safetensors"]


def cut(path: Path):
    path.write_bytes(path.read_bytes()[:2000])


def edit(path: Path):
    path.write_text(path.read_text().replace("log_linear", "linear"))


@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("model.safetensors", cut, "is not a readable inverter"),
        ("config.json", edit, "config.json is not the one that was saved with the weights"),
        ("tokenizer.json", cut, "the tokenizer (tokenizer.json) is missing or damaged"),
        ("generation_config.json", Path.unlink, "missing: generation_config.json"),
        ("trunk_embinv.py", Path.unlink, "missing: trunk_embinv.py"),
        ("configuration_embinv.py", Path.unlink, "missing: configuration_embinv.py"),
        ("trunk_embinv.py", cut, "trunk_embinv.py is damaged"),
    ],
)
def test_what_nobody_could_load_is_not_pushed(folder, tmp_path, capsys, name, damage, message):
    """A cut or edited file went up, and the first user met the error, or other settings without a word."""
    damaged, out = shutil.copytree(folder, tmp_path / "inv"), tmp_path / "out"
    damage(damaged / name)
    assert main(["push", str(damaged), "--repo", "me/inv", "--dry-run", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize("named", ["checkpoints/embinv-minilm", "embinv/embinv-minilm"])
@pytest.mark.parametrize("name", ["embinv-minilm", "copy"])
def test_the_card_names_the_repository(folder, tmp_path, monkeypatch, name, named):
    """From within the folder, or from a copy, the card's code went on to load a folder that nobody else has."""
    copied = shutil.copytree(folder, tmp_path / name)
    code = 'AutoModel.from_pretrained("{0}"){1}pipeline("embedding-inversion", model="{0}"){1}see checkpoints/README'
    (copied / "README.md").write_text(code.format(named, "\n"))
    monkeypatch.chdir(copied)
    assert main(["push", ".", "--repo", "me/mine", "--dry-run", str(tmp_path / "out")]) == 0
    assert code.format("me/mine", "\n") in (tmp_path / "out" / "model" / "README.md").read_text()


def test_only_an_inverter_s_own_files_are_sent(folder, tmp_path, capsys):
    """Keys and tokens that lie in the folder were published, and a dry run listed a file that stays here."""
    others = {"HF_TOKEN.txt", "id_rsa", "config.json.partial", "optimizer.bin"}
    mixed = shutil.copytree(folder, tmp_path / "inv")
    for name in (*others, "lengths.png", "vocab.txt"):
        (mixed / name).write_text("secret")
    assert main(["push", str(mixed), "--repo", "me/inv", "--dry-run", str(tmp_path / "out")]) == 0
    written = {path.name for path in (tmp_path / "out" / "model").iterdir()}
    assert written == {path.name for path in mixed.iterdir()} - others | {"README.md"}
    assert "not of an inverter, so left out: HF_TOKEN.txt, config.json.partial, id_rsa, opt" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["tests", "missing"])
def test_a_wrong_space_is_named_before_anything_is_written(folder, tmp_path, wrong, monkeypatch):
    """The model was written already, so the corrected command failed: the folder was not empty."""
    monkeypatch.chdir(ROOT)
    arguments = ["push", str(folder), "--repo", "me/inv", "--dry-run", str(tmp_path / "out")]
    assert main([*arguments, "--space", wrong]) == 2
    assert main([*arguments, "--space", "space"]) == 0
    (tmp_path / "out" / "model").rename(tmp_path / "model")
    assert main([*arguments, "--space", "space"]) == 2
    assert not (tmp_path / "out" / "model").exists()
