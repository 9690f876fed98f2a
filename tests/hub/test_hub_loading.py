"""Loading by repository id: a stand-in of the Hub serves it, then only the cache does."""

import json
from pathlib import Path

import pytest

from modeling_embinv import repository
from modeling_embinv.loading import load_inverter
from modeling_embinv.training.backbone import prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from tests.hub.hub_server import environment, serve
from tests.hub.tiny_folder import new_tiny_inverter

ROOT = Path(__file__).parents[2]
OLD, NEW = "1" * 40, "2" * 40
# prints, for each case, the sum of the projector's weights or the error; one process, as imports take longest. By
# transformers, as a stranger loads it, or by the package where a case says "pinned"
LOAD = """
import json, sys
from transformers import AutoModel
results = []
for case in json.loads(sys.argv[1]):
    try:
        if "pinned" in case:
            sys.path.insert(0, sys.argv[2])
            from modeling_embinv.loading import load_inverter
            model, _ = load_inverter(case.pop("pinned"), **case)
        else:
            model = AutoModel.from_pretrained("me/inv", trust_remote_code=True, **case)
        results.append([float(model.projector.dense_in.weight.double().sum()), model.generation_config.num_steps])
    except OSError as error:
        results.append(str(error))
print(json.dumps(results))
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


def load(fresh, cases: list[dict], folder: Path, environment: dict[str, str]) -> list:
    done = fresh.run(LOAD, json.dumps(cases), str(ROOT), cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_loading_by_id_respects_revision_cache_and_offline(commits, fresh, tmp_path):
    """Catches weights of one commit with settings or code of another, a second cache, and network use when offline."""
    own = {"cache_dir": str(tmp_path / "cache")}
    empty = {"cache_dir": str(tmp_path / "empty")}
    online = [
        {"revision": OLD, **own}, own, {"revision": "no-such-branch", **own},
        {"revision": OLD, "local_files_only": True, **own}, {"local_files_only": True, **empty},
        {"pinned": f"me/inv@{OLD}"},
    ]  # fmt: skip
    offline = [online[0], empty, {"pinned": f"me/inv@{OLD}"}, {"pinned": f"me/inv@{NEW}"}]
    sums = {commit: files.pop("sum") for commit, files in commits.items()}
    with serve() as hub:
        hub.models["me/inv"] = commits
        old, new, missing, cached, nothing, pinned = load(fresh, online, tmp_path, environment(hub, tmp_path / "home"))
        assert old == cached == pinned == [pytest.approx(sums[OLD]), 3]
        assert new == [pytest.approx(sums[NEW]), 4]
        assert "no-such-branch" in missing and "couldn't find them in the cached files" in nothing
        weights = [commit for call, commit, name in hub.downloads if (call, name) == ("GET", "model.safetensors")]
        assert weights == [OLD, NEW, OLD]  # the last into the usual cache, which held nothing
        (usual,) = (tmp_path / "home" / "hub").glob("models--me*")
        assert [path.name for path in (usual / "snapshots").iterdir()] == [OLD]

        served = len(hub.downloads)
        without = environment(hub, tmp_path / "home", HF_HUB_OFFLINE="1")
        again, nothing, pinned, lost = load(fresh, offline, tmp_path, without)
        assert again == pinned == old and "couldn't find them in the cached files" in nothing
        assert "is not a folder here, and cannot be loaded from the Hub or its cache" in lost and "\n" not in lost
        assert len(hub.downloads) == served


@pytest.mark.slow
def test_the_tokenizer_comes_from_where_the_model_does(commits, fresh, tmp_path):
    """The model's revision came with the tokenizer of the newest one, from a second cache, or over the network."""
    own = {"pinned": "me/inv", "revision": OLD, "cache_dir": str(tmp_path / "cache")}
    with serve() as hub:
        hub.models["me/inv"] = {commit: {**files} for commit, files in commits.items()}
        for files in hub.models["me/inv"].values():
            files.pop("sum", None)
        cases = [own, {**own, "local_files_only": True}]
        first, again = load(fresh, cases, tmp_path, environment(hub, tmp_path / "h"))
        assert first == again and first[1] == 3
        assert {commit for _, commit, name in hub.downloads if name == "tokenizer.json"} == {OLD}
        assert not list((tmp_path / "h").glob("hub/models--me*"))


def test_a_folder_within_a_repository(commits, tmp_path):
    """The tokenizer was looked for at the top."""
    (tmp_path / "inner").mkdir()
    for name, content in commits[OLD].items():
        if name != "sum":
            (tmp_path / "inner" / name).write_bytes(content)
    model, tokenizer = load_inverter(tmp_path, subfolder="inner")
    assert model.config.vocab_size == len(tokenizer)


@pytest.mark.parametrize("name", ["./nope", "../nowhere", "a--b", "a" * 120])
def test_a_mistyped_folder_is_one_line(monkeypatch, name):
    """With the Hub in reach, a folder that is not there ended in the library's traceback."""
    monkeypatch.setattr(repository, "is_offline_mode", lambda: False)
    with pytest.raises(OSError, match="is not a folder here, nor can a repository have that name"):
        load_inverter(name)
