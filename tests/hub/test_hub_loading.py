"""Loading by repository id: a stand-in of the Hub serves it, then only the cache does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_embinv.training.backbone import prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from tests.hub.hub_server import environment, serve
from tests.hub.tiny_folder import new_tiny_inverter

ROOT = Path(__file__).parents[2]
OLD, NEW = "1" * 40, "2" * 40
# prints, for each case, the sum of the projector's weights or the error; one process, as imports take longest
LOAD = """
import json, sys
from transformers import AutoModel
results = []
for case in json.loads(sys.argv[1]):
    try:
        model = AutoModel.from_pretrained("me/inv", trust_remote_code=True, **case)
        results.append([float(model.projector.dense_in.weight.double().sum()), model.generation_config.num_steps])
    except OSError as error:
        results.append(str(error))
print(json.dumps(results))
"""
LOAD_PINNED = """
import sys
from modeling_embinv.loading import load_inverter
try:
    model, tokenizer = load_inverter(sys.argv[1])
    print(float(model.projector.dense_in.weight.double().sum()), len(tokenizer))
except OSError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def commits(tmp_path_factory, encoder) -> dict[str, dict[str, bytes]]:
    """Two commits of one repository, with other weights and another default number of steps."""
    tokenizer, found = prepare_tokenizer(encoder.tokenizer), {}
    for seed, commit in enumerate((OLD, NEW)):
        model = new_tiny_inverter(encoder.tokenizer, seed)
        model.generation_config.num_steps = 3 + seed
        folder = export(model, tokenizer, tmp_path_factory.mktemp("commit") / "last")
        found[commit] = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        found[commit]["sum"] = float(model.projector.dense_in.weight.detach().half().double().sum())
    return found


def python(code: str, argument: str, **options):
    done = subprocess.run(
        [sys.executable, "-c", code, argument], capture_output=True, text=True, timeout=600, **options
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_loading_by_id_respects_revision_cache_and_offline(commits, tmp_path):
    """Catches weights of one commit with settings or code of another, a second cache, and network use when offline."""
    cases = [
        {"revision": OLD, "cache_dir": str(tmp_path / "cache")},
        {"cache_dir": str(tmp_path / "cache")},
        {"cache_dir": str(tmp_path / "cache"), "revision": "no-such-branch"},
        {"cache_dir": str(tmp_path / "cache"), "revision": OLD, "local_files_only": True},
        {"cache_dir": str(tmp_path / "empty"), "local_files_only": True},
    ]
    with serve() as hub:
        hub.models["me/inv"] = {
            name: {k: v for k, v in files.items() if k != "sum"} for name, files in commits.items()
        }
        variables = environment(hub, tmp_path / "home")
        old, new, missing, cached, empty = json.loads(python(LOAD, json.dumps(cases), env=variables, cwd=tmp_path))
        assert old == cached == [pytest.approx(commits[OLD]["sum"]), 3]
        assert new == [pytest.approx(commits[NEW]["sum"]), 4]
        assert "no-such-branch" in missing and "couldn't find them in the cached files" in empty
        weights = [
            commit for command, commit, name in hub.downloads if (command, name) == ("GET", "model.safetensors")
        ]
        assert weights.count(OLD) == weights.count(NEW) == 1
        assert not list((tmp_path / "home" / "hub").glob("models--me*"))

        pinned = python(LOAD_PINNED, f"me/inv@{OLD}", env=variables, cwd=ROOT)
        assert float(pinned.split()[0]) == pytest.approx(commits[OLD]["sum"])
        served = len(hub.downloads)

        offline = environment(hub, tmp_path / "home", HF_HUB_OFFLINE="1")
        again = json.loads(python(LOAD, json.dumps([cases[0], {"cache_dir": str(tmp_path / "empty")}]), env=offline))
        assert again[0] == old and "couldn't find them in the cached files" in again[1]
        assert python(LOAD_PINNED, f"me/inv@{OLD}", env=offline, cwd=ROOT) == pinned
        lost = python(LOAD_PINNED, f"me/inv@{NEW}", env=offline, cwd=ROOT)
        assert "is no folder here, and cannot be loaded from the Hub or its cache" in lost and lost.count("\n") == 1
        assert len(hub.downloads) == served
