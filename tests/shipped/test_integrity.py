"""What loading refuses: checkpoints that are not whole, were changed, or come with another tokenizer."""

import json
import shutil
from hashlib import blake2b
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast, pipeline

from modeling_embinv import EmbInvConfig, EmbInvForMaskedDiffusion
from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.configuration_embinv import REQUIRED
from modeling_embinv.integrity_embinv import vocabulary_checksum
from modeling_embinv.loading import load_inverter
from modeling_embinv.training.backbone import new_inverter
from modeling_embinv.training.checkpoints import export
from tests.hub.hub_server import environment, serve
from tests.hub.tiny_folder import TRUNK
from tests.tiny_models import END, MASK, PAD, VOCAB, awaken, tiny_config, tiny_model, unit_vectors

SPECIAL = {PAD: "[PAD]", 1: "[UNK]", END: "[SEP]", MASK: "[MASK]"}
WEIGHTS = "model.safetensors"


def word_tokenizer(size: int = VOCAB, first: int = 0, **special: str) -> PreTrainedTokenizerFast:
    """Special tokens, then w4, w5, … or words that are numbered from `first` on."""
    vocabulary = {SPECIAL.get(index, f"w{index + first}"): index for index in range(size)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.decoder = decoders.WordPiece()
    names = dict(pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]", mask_token="[MASK]")
    return PreTrainedTokenizerFast(tokenizer_object=words, **{**names, **special})


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An exported inverter with everything that a checkpoint may have."""
    torch.manual_seed(0)
    sizes = dict(embedding_dim=16, max_sequence_length=12, num_condition_tokens=1, canvas_lengths=[8, 12])
    model = awaken(new_inverter(word_tokenizer(), TRUNK, **sizes, noise_schedule="cosine"))
    model.add_surrogate(4, first_token_id=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return export(model.eval(), word_tokenizer(), tmp_path_factory.mktemp("whole") / "inverter")


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "inverter"))


def edit_config(folder: Path, remove=(), **changes):
    path = folder / "config.json"
    settings = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in settings.items() if key not in remove}))


def edit_weights(folder: Path, change):
    """`change` gets all tensors by name, and may change the dict and the tensors."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS, {"format": "pt"})


def unseal(folder: Path) -> Path:
    """As it was saved before there were checksums."""
    edit_config(folder, remove=["checksums"])
    return folder


def written(folder: Path) -> torch.Tensor:
    """What the checkpoint makes of four vectors: ids, logits and what its surrogate reads of them."""
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    with torch.no_grad():
        ids = model.generate(unit_vectors(4)).sequences
        logits = model(ids, unit_vectors(4), torch.linspace(0.2, 1, 4)).logits
        return torch.cat([ids.flatten(), logits.flatten(), model.embed(ids).flatten()])


def refusal(folder: Path, error: type[Exception] = ValueError) -> str:
    """The one line with which both doors refuse a folder, the first by an error of this kind."""
    with pytest.raises(error) as refused:
        AutoModel.from_pretrained(folder, trust_remote_code=True)
    with pytest.raises(OSError) as closed:
        load_inverter(folder)
    line = str(refused.value)
    assert "\n" not in line and line in str(closed.value)
    return line


@pytest.mark.parametrize("name", ["decoder.bias", "head.dense.weight", "head.norm.weight", "surrogate.up.2"])
def test_a_missing_weight_is_named(folder, name, caplog):
    """It was drawn at random, with a table in the log, and the model wrote nonsense."""
    edit_weights(unseal(folder), lambda tensors: tensors.pop(name))
    assert f"the weights do not fit config.json: missing {name}. " in refusal(folder)
    assert "LOAD REPORT" not in caplog.text


def test_many_missing_weights_are_counted(folder):
    """A hundred names are no line."""

    def drop(tensors):
        for name in [name for name in tensors if name.startswith("surrogate.")]:
            del tensors[name]

    edit_weights(unseal(folder), drop)
    line = refusal(folder)
    assert "missing surrogate.dense.bias, surrogate.dense.weight, surrogate.down.0 and " in line and len(line) < 250


def test_weights_of_another_shape_number_or_name_are_named(folder):
    """Integers were taken for weights, and what was left over was dropped."""

    def change(tensors):
        tensors["head.norm.bias"] = torch.zeros(9)
        tensors["gate.weight"] = torch.zeros(3)

    before = load_file(folder / WEIGHTS)
    edit_weights(unseal(folder), change)
    assert "unexpected gate.weight; head.norm.bias has shape (9,) for (16,)." in refusal(folder)
    save_file({**before, "decoder.bias": torch.ones(VOCAB, dtype=torch.int8)}, folder / WEIGHTS, {"format": "pt"})
    assert "weights must be floating point, these are not: decoder.bias (I8)." in refusal(folder)
    for value in (float("inf"), float("nan")):
        edit_weights(
            folder, lambda tensors, value=value: tensors.update(before) or tensors["head.norm.bias"].fill_(value)
        )
        assert "weights must be finite, these are not: head.norm.bias." in refusal(folder)


def test_large_finite_weights_are_no_infinity(folder):
    """Finiteness is found by a sum, which overflows before any of its terms does."""

    def change(tensors):
        tensors["decoder.bias"] = torch.full((VOCAB,), 2e38)

    edit_weights(unseal(folder), change)
    assert float(
        AutoModel.from_pretrained(folder, trust_remote_code=True).decoder.bias.detach().max()
    ) == pytest.approx(2e38)


def test_checkpoints_of_before_load(folder):
    """A check that needs what older checkpoints lack locks them out."""
    expected = written(folder)
    assert torch.equal(written(unseal(folder)), expected)
    edit_weights(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if "surrogate" in name])
    edit_config(folder, remove=["surrogate_rank", "canvas_lengths", "custom_pipelines", "dtype"])
    model, _ = load_inverter(folder)
    assert model.surrogate is None and model.dtype == torch.float32, "weights are stored in float16"
    assert model.config.checksums is None


def test_every_way_to_load_and_save_stays_open(folder, tmp_path):
    """Another dtype, shards, a state dict, devices, training and saving: none of them may trip over a checksum."""
    model, expected = EmbInvForMaskedDiffusion.from_pretrained(folder).eval(), written(folder)
    assert model.config.checksums.keys() == {"settings", "vocabulary", "weights"}
    assert EmbInvForMaskedDiffusion.from_pretrained(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert EmbInvForMaskedDiffusion.from_pretrained(folder, device_map="cpu").device.type == "cpu"
    assert EmbInvForMaskedDiffusion.from_pretrained(folder, noise_lambda=2.0).config.noise_lambda == 2.0
    assert set(EmbInvForMaskedDiffusion.from_pretrained(folder, output_loading_info=True)[1]) >= {"missing_keys"}
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    state = EmbInvForMaskedDiffusion.from_pretrained(None, config=config, state_dict=model.state_dict())
    assert torch.equal(state.modulation.weight, model.modulation.weight)
    model.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
    assert len(list((tmp_path / "shards").glob("model-*"))) > 3
    assert torch.equal(written(tmp_path / "shards"), expected)
    with torch.no_grad():
        model.head.norm.bias.add_(1)
    model.config.encoder_prompt = "query: "
    model.save_pretrained(tmp_path / "tuned")
    tuned = EmbInvForMaskedDiffusion.from_pretrained(tmp_path / "tuned")
    assert torch.equal(tuned.head.norm.bias, model.head.norm.bias) and tuned.config.encoder_prompt == "query: "
    model.save_pretrained(tmp_path / "tuned", variant="fp16")
    assert EmbInvForMaskedDiffusion.from_pretrained(tmp_path / "tuned", variant="fp16").config.checksums["settings"]
    model.resize_token_embeddings(VOCAB + 8)
    model.config.backbone_config.vocab_size = VOCAB + 8
    model.save_pretrained(tmp_path / "grown")
    assert "vocabulary" not in EmbInvForMaskedDiffusion.from_pretrained(tmp_path / "grown").config.checksums


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("first", ["one file", "shards"])
def test_what_was_saved_last_is_loaded(folder, first, variant, tmp_path):
    """Shards that were saved over a single file: loading took the file, which had the old weights, without a word."""
    model, sizes = EmbInvForMaskedDiffusion.from_pretrained(folder), {"one file": "5GB", "shards": "5KB"}
    out = tmp_path / "out"
    for number, kind in enumerate(sorted(sizes, key=lambda kind: kind != first)):
        with torch.no_grad():
            model.head.norm.bias.fill_(number)
        model.save_pretrained(out, max_shard_size=sizes[kind], variant=variant)
        loaded = EmbInvForMaskedDiffusion.from_pretrained(out, variant=variant)
        assert torch.equal(loaded.head.norm.bias, model.head.norm.bias)
    left = [path.name for path in out.iterdir() if path.suffix == ".safetensors" or "index" in path.name]
    assert len(left) == 1 if first == "shards" else not {WEIGHTS, "model.fp16.safetensors"} & set(left)


def test_another_shape_on_purpose(folder):
    """Vectors of another width start a new projector, as in every other model of the library, and nothing else."""
    wider = dict(embedding_dim=24, ignore_mismatched_sizes=True)
    model = EmbInvForMaskedDiffusion.from_pretrained(folder, **wider)
    assert model.projector.dense_in.in_features == 24
    with pytest.raises(ValueError, match="projector.dense_in.weight has shape"):
        EmbInvForMaskedDiffusion.from_pretrained(folder, embedding_dim=24)
    edit_weights(unseal(folder), lambda tensors: tensors.pop("decoder.bias"))
    with pytest.raises(ValueError, match="missing decoder.bias"):
        EmbInvForMaskedDiffusion.from_pretrained(folder, **wider)


@pytest.mark.parametrize("key", REQUIRED)
def test_a_config_without_what_was_trained_is_refused(folder, key):
    """The default stood in: another noise schedule, a canvas of 32 for one of 12."""
    edit_config(unseal(folder), remove=[key])
    with pytest.raises(OSError, match=r"config\.json") as closed:
        load_inverter(folder)
    assert key in str(closed.value) and "\n" not in str(closed.value)
    with pytest.raises(ValueError, match=key):
        AutoModel.from_pretrained(folder, trust_remote_code=True)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"noise_lamda": 3.0}, "config.json has unknown keys, noise_lamda: remove"),
        ({"embedding_dim": "16"}, "embedding_dim"),
        ({"canvas_lengths": 12}, "canvas_lengths"),
        ({"noise_lambda": None}, "noise_lambda"),
        ({"noise_schedule": "quadratic"}, "noise_schedule"),
        ({"backbone_config": None}, "a table as backbone_config"),
        ({"backbone_config": {"model_type": "nonesuch"}}, "nonesuch"),
        ({"pad_token_id": VOCAB}, "pad_token_id must be below 60, got 60."),
        ({"checksums": ["settings"]}, "checksums must be a table of texts"),
    ],
)
def test_settings_that_mean_nothing_are_refused_in_one_line(folder, changes, message):
    """Errors of several lines, from two libraries, or none at all."""
    edit_config(unseal(folder), **changes)
    assert message in refusal(folder)


def spoilt_settings(settings: dict, random: Random) -> dict:
    """Another value of the same type at a random key that decides what is written."""
    settings = json.loads(json.dumps(settings))
    target = random.choice([settings, settings["backbone_config"]])
    free = {"architectures", "auto_map", "checksums", "custom_pipelines", "transformers_version"}
    key = random.choice(sorted(set(target) - free - {"backbone_config"}))
    value = target[key]
    if isinstance(value, bool) or value is None:
        target[key] = not value
    elif isinstance(value, (int, float)):
        target[key] = value + random.choice([1, 2, 8])
    elif isinstance(value, list):
        target[key] = value[:-1]
    else:
        target[key] = random.choice(["linear", "relu", "log_linear"])
    return settings


def spoil(folder: Path, random: Random) -> str:
    """Change one thing about a checkpoint; says what."""
    kind = random.choice(["flip", "flip", "tensor", "setting", "key"])
    path = folder / WEIGHTS
    if kind == "flip":
        content = bytearray(path.read_bytes())
        place, bit = random.randrange(len(content)), random.randrange(8)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        return f"bit {bit} of byte {place}"
    if kind == "tensor":
        tensors = load_file(path)
        name = random.choice(sorted(tensors))
        change = random.choice(["drop", "transpose", "zero", "swap", "flat"])
        _spoil_tensor(tensors, name, change)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
        return f"{change} {name}"
    settings = json.loads((folder / "config.json").read_text())
    if kind == "key":
        key = random.choice(sorted(set(settings)))
        edit_config(folder, remove=[key])
        return f"without {key}"
    changed = spoilt_settings(settings, random)
    (folder / "config.json").write_text(json.dumps(changed))
    return f"settings {[(key, changed[key]) for key in settings if settings[key] != changed[key]]}"


def _spoil_tensor(tensors: dict, name: str, change: str):
    if change == "drop":
        del tensors[name]
    elif change == "swap":
        other = next(other for other in tensors if other != name)
        tensors[name], tensors[other] = tensors[other].clone(), tensors[name].clone()
    else:
        changes = {
            "transpose": lambda x: x.t() if x.ndim == 2 else x.flip(0),
            "zero": torch.zeros_like,
            "flat": torch.ravel,
        }
        tensors[name] = changes[change](tensors[name])


def outcome(folder: Path, expected: torch.Tensor) -> str:
    """same, other, or the line with which a folder is refused."""
    try:
        load_inverter(folder)
        return "same" if torch.equal(written(folder), expected) else "other"
    except (OSError, ValueError) as error:
        return str(error)


def test_a_spoilt_checkpoint_never_writes_something_else(whole, tmp_path):
    """A flipped bit, a transposed matrix or another noise schedule gave another text without a word."""
    expected, refused = written(whole), 0
    for seed in range(40):
        folder = Path(shutil.copytree(whole, tmp_path / str(seed)))
        what = spoil(folder, Random(seed))
        found = outcome(folder, expected)
        assert found != "other" and "\n" not in found, (seed, what, found)
        refused += found != "same"
        shutil.rmtree(folder)
    assert refused > 30


def test_who_is_refused_is_told_what_to_do(folder):
    """Weights and settings are mended in different ways."""
    edit_config(folder, noise_schedule="linear")
    assert "config.json is not the one that was saved with the weights, its checksum differs: download" in refusal(
        folder
    )
    edit_config(folder, noise_schedule="cosine")
    edit_weights(folder, lambda tensors: tensors["decoder.bias"].mul_(2))
    line = refusal(folder)
    assert "the weights are not the ones that were saved, their checksum differs: download it again; to change" in line
    assert line.endswith("load the model, change that and call save_pretrained.")


def test_a_damaged_generation_config_is_refused(folder):
    """The defaults stood in for it: other steps, and special tokens within texts."""
    (folder / "generation_config.json").write_text('{"num_steps": 3')
    assert "generation_config.json" in refusal(folder, OSError)


def test_the_order_and_number_of_files_do_not_matter(folder):
    """Another writer of safetensors puts the same tensors in another order."""
    expected = written(folder)
    tensors = load_file(folder / WEIGHTS)
    save_file(dict(reversed(tensors.items())), folder / WEIGHTS, {"format": "pt", "note": "rewritten"})
    assert torch.equal(written(folder), expected)


@pytest.mark.parametrize(
    "tokenizer, message",
    [
        (word_tokenizer(VOCAB + 1), "vocab_size is 61 for 60"),
        (word_tokenizer(mask_token="w9", pad_token="w8"), "mask_token_id is 9 for 3; pad_token_id is 8 for 0"),
        (word_tokenizer(sep_token="w7"), "eos_token_id is 7 for 2"),
        (word_tokenizer(first=100), "its tokens are others"),
        (None, "the tokenizer (tokenizer.json) is missing or damaged"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(folder, tokenizer, message):
    """Other words than the model meant, without a word; without its file, none at all."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
        with pytest.raises(ValueError, match=message):
            pipeline("embedding-inversion", model=str(folder), trust_remote_code=True)
    with pytest.raises(OSError) as closed:
        load_inverter(folder)
    assert message in str(closed.value) and "\n" not in str(closed.value)


def test_a_vocabulary_s_checksum_follows_its_tokens():
    """It is kept from call to call, so that a token that was added in between, or moved, was not noticed."""
    tokenizer = word_tokenizer()
    tokens = tokenizer.get_vocab()
    listed = json.dumps(sorted([index, token] for token, index in tokens.items()))
    before = f"{len(tokens)}-{blake2b(listed.encode(), digest_size=8).hexdigest()}"
    assert [vocabulary_checksum(tokenizer), vocabulary_checksum(word_tokenizer())] == [before, before]
    tokenizer.add_tokens(["brandnew"])
    others = vocabulary_checksum(tokenizer), vocabulary_checksum(word_tokenizer(first=100))
    assert others[0].startswith(f"{len(tokens) + 1}-") and others[1].startswith(f"{len(tokens)}-")
    assert others[1] != before == vocabulary_checksum(word_tokenizer())


@pytest.mark.parametrize("kind", ["BertTokenizer", "TokenizersBackend"])
def test_a_folder_without_tokenizer_json_is_refused(folder, kind):
    """Some classes make a tokenizer of five words out of nothing."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    with pytest.raises(OSError, match="tokenizer") as closed:
        load_inverter(folder)
    assert "\n" not in str(closed.value)


def test_the_released_checkpoint_is_sealed():
    """Without checksums in it, nobody would notice a damaged download of the checkpoint that most people load."""
    checksums = EmbInvConfig.from_pretrained(CHECKPOINT).checksums
    assert checksums.keys() == {"settings", "vocabulary", "weights"}
    load_inverter(CHECKPOINT)


def test_the_constructor_keeps_its_defaults():
    """Only files must be whole."""
    assert EmbInvConfig().max_sequence_length == 32 and EmbInvConfig().checksums is None
    assert tiny_model().config.num_condition_tokens == 0
    config = EmbInvConfig.from_dict(tiny_config().to_dict())
    assert config.vocab_size == VOCAB


LOAD = """
import json, sys
from transformers import AutoModel
for case in json.loads(sys.argv[1]):
    try:
        model = AutoModel.from_pretrained("me/inv", trust_remote_code=True, **case)
        print("loaded", model.config.checksums["weights"])
    except (ValueError, OSError) as error:
        print(error)
"""


@pytest.mark.slow
def test_checkpoints_of_the_hub_are_checked_as_well(folder, fresh, tmp_path):
    """Weights that arrived damaged, or those of another revision, lie in a cache and not in the folder."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    edit_weights(folder, lambda tensors: tensors["decoder.bias"].mul_(2))
    damaged = {**files, WEIGHTS: (folder / WEIGHTS).read_bytes()}
    model = EmbInvForMaskedDiffusion.from_pretrained(unseal(folder))
    model.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
    shards = {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir() if path.is_file()}
    commits = {"1" * 40: files, "2" * 40: damaged, "3" * 40: shards}
    commits["4" * 40] = {**files, **{f"part/{name}": content for name, content in shards.items()}}
    cases = [{"revision": commit} for commit in commits] + [{"revision": "4" * 40, "subfolder": "part"}, {}]
    with serve() as hub:
        hub.models["me/inv"] = commits
        for offline in ("0", "1"):
            variables = environment(hub, tmp_path / "home", HF_HUB_OFFLINE=offline)
            done = fresh.run(LOAD, json.dumps(cases), cwd=tmp_path, env=variables)
            assert done.returncode == 0, done.stderr[-2000:]
            first, second, sharded, third, inner, newest = done.stdout.splitlines()
            assert first == third == newest and first.startswith("loaded")
            assert "the weights are not the ones that were saved" in second
            assert sharded == inner and sharded.startswith("loaded") and sharded != first


TOKENIZER = """
import builtins, sys
from functools import partial
from transformers import AutoTokenizer, PreTrainedTokenizerFast
def ask(prompt=""):
    raise SystemExit("asked: " + prompt)
builtins.input = ask
for load in (partial(AutoTokenizer.from_pretrained, trust_remote_code=False), PreTrainedTokenizerFast.from_pretrained):
    tokenizer = load(sys.argv[1])
    print(tokenizer.mask_token_id, len(tokenizer), tokenizer.decode([9, 8]))
assert not any("transformers_modules" in name or "modeling_embinv" in name for name in sys.modules)
"""


@pytest.mark.slow
def test_a_tokenizer_needs_no_code(whole, fresh, tmp_path):
    """Left open, `trust_remote_code` lets transformers ask before it reads the tokenizer's files, which need none."""
    done = fresh.run(TOKENIZER, str(whole), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [f"{MASK} {VOCAB} w9 w8"] * 2
