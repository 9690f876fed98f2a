"""What a Hub user gets: a folder that loads with torch and transformers alone."""

import json
import sys
import warnings
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast, pipeline

from modeling_embinv.training.backbone import new_inverter, prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from modeling_embinv.verdicts_embinv import verdict_of
from tests.hub.tiny_folder import TRUNK, new_tiny_inverter
from tests.tiny_models import unit_vectors

SHIPPED = {
    "causal_embinv.py", "conditioning_embinv.py", "configuration_embinv.py", "correction_embinv.py",
    "cross_entropy_embinv.py", "diffusion_embinv.py", "drafting_embinv.py", "edits_embinv.py",
    "errors_embinv.py", "favoured_embinv.py", "filled_embinv.py", "filling_embinv.py", "fingerprint_embinv.py",
    "gap_affixes_embinv.py", "gap_combinations_embinv.py", "gap_kinds_embinv.py", "gap_marks_embinv.py",
    "gap_proposals_embinv.py", "gap_reach_embinv.py", "gap_search_embinv.py", "gap_states_embinv.py",
    "generation_config_embinv.py", "generation_embinv.py", "hypotheses_embinv.py", "inputs_embinv.py",
    "int8_embinv.py", "integrity_embinv.py", "judge_embinv.py", "likelihood_embinv.py", "linear_embinv.py",
    "modeling_embinv.py", "pipeline_embinv.py", "presets_embinv.py", "sampler_embinv.py",
    "search_embinv.py", "settings_embinv.py",
    "storage_embinv.py", "surrogate_embinv.py", "texts_embinv.py", "trunk_embinv.py",
    "verdicts_embinv.py", "vectors_embinv.py", "vocabulary_embinv.py", "words_embinv.py",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory, encoder) -> Path:
    tokenizer = prepare_tokenizer(encoder.tokenizer)
    model = new_tiny_inverter(encoder.tokenizer, num_condition_tokens=1)
    model.generation_config.strategy, model.generation_config.num_steps = "euler_remask", 5
    folder = tmp_path_factory.mktemp("hub") / "inverter"
    export(model, tokenizer, folder)
    torch.save({"logits": _probe(model), "ids": _generate(model)}, folder.parent / "expected.pt")
    return folder


def _probe(model) -> torch.Tensor:
    ids = torch.full((2, 12), model.config.mask_token_id)
    with torch.no_grad():
        return model(ids, unit_vectors(2), torch.tensor([1.0, 0.5])).logits


def _generate(model) -> torch.Tensor:
    return model.generate(unit_vectors(2), generator=torch.Generator().manual_seed(1)).sequences


STRANGER = """
import sys
import warnings
assert not {{"transformers", "modeling_embinv"}} & set(sys.modules)
sys.path = [path for path in sys.path if path not in ("", {root!r})]
sys.modules["modeling_embinv"] = None         # importing this package would fail
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, pipeline
expected = torch.load(sys.argv[1])
def check(folder):
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (config.embedding_dim, config.max_sequence_length, config.vocab_size) == (16, 12, len(tokenizer))
    assert config.mask_token_id == tokenizer.mask_token_id and config.encoder_id == "a/b"
    assert model.dtype == torch.float32
    assert (model.generation_config.strategy, model.generation_config.num_steps) == ("euler_remask", 5)
    assert model.generation_config.suppress_tokens
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(2, 16, generator=generator)
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    with torch.no_grad():
        logits = model(torch.full((2, 12), config.mask_token_id), vectors, torch.tensor([1.0, 0.5])).logits
    assert (logits - expected["logits"]).abs().max() < 0.02, (logits - expected["logits"]).abs().max()
    ids = model.generate(vectors, generator=torch.Generator().manual_seed(1)).sequences
    assert torch.equal(ids, expected["ids"])
    invert = pipeline("embedding-inversion", model=folder, trust_remote_code=True)
    rows = invert(vectors, seed=1)
    assert [row["text"] for row in rows] == tokenizer.batch_decode(ids, skip_special_tokens=True)
    return model, tokenizer

for part in check(sys.argv[2]):
    part.save_pretrained(sys.argv[3])
check(sys.argv[3])
"""


def stranger(fresh, *arguments: Path, cwd: Path):
    """Run as a process that has torch and transformers, and not this package."""
    code = STRANGER.format(root=str(Path(__file__).parents[2]))
    variables = {"PATH": "/usr/bin:/bin", "HF_HOME": str(cwd / "hf"), "HF_HUB_OFFLINE": "1"}
    result = fresh.run(code, *map(str, arguments), cwd=cwd, env=variables)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.slow
def test_loads_without_the_package_and_survives_saving_again(folder, fresh, tmp_path):
    """What a folder lacks shows only in a process that never imported the package.

    Code files that are missing, an ignored generation_config.json, or buffers left as garbage by meta-device loading;
    and saving what was loaded must keep it whole.
    """
    expected = folder.parent / "expected.pt"
    again = tmp_path / "again"
    stranger(fresh, expected, folder, again, cwd=tmp_path)
    assert {path.name for path in again.glob("*.py")} == SHIPPED


def test_files_shipped_to_the_hub(folder):
    """A forgotten sibling breaks every user; a stray one ships training code."""
    assert {path.name for path in folder.glob("*.py")} == SHIPPED
    others = {path.name for path in folder.iterdir()} - SHIPPED
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= others
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in others)
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_embinv.EmbInvConfig", "AutoModel": "modeling_embinv.EmbInvForMaskedDiffusion",
    }  # fmt: skip
    assert config["dtype"] == "float32"


def test_pipeline_takes_vectors_of_every_kind(folder, tmp_path):
    """Rows taken for a batch of words, a batch size that changes texts, or a saved pipeline that does not load."""
    invert = pipeline("embedding-inversion", model=str(folder), trust_remote_code=True)
    vectors = unit_vectors(5)
    rows = invert(vectors, strategy="confidence", batch_size=2)
    assert len(rows) == 5 and set(rows[0]) == {"text", "confidence", "tokens", "token_confidence"}
    for same in (vectors.numpy(), vectors.tolist(), list(vectors.numpy()), vectors.double()):
        assert [row["text"] for row in invert(same, strategy="confidence")] == [row["text"] for row in rows]
    one = invert(vectors[0].tolist(), strategy="confidence")
    assert one["text"] == rows[0]["text"] and len(one["tokens"]) == len(one["token_confidence"])
    assert abs(one["confidence"] - sum(one["token_confidence"]) / len(one["tokens"])) < 1e-6
    assert invert([], preset="quick") == []
    with pytest.raises(ValueError, match="must have shape"):
        invert([[1.0, 2.0]], preset="quick")
    with pytest.raises(ValueError, match="unknown generation argument"):
        invert(vectors, beams=3)
    invert.save_pretrained(tmp_path)
    again = pipeline("embedding-inversion", model=str(tmp_path), trust_remote_code=True)
    assert again(vectors[0], strategy="confidence")["text"] == one["text"]


SEARCH = dict(feedback="surrogate", num_candidates=3, num_corrections=2, num_proposals=4)


def of_common_tokens(tokenizer: PreTrainedTokenizerFast, size: int = 6000) -> PreTrainedTokenizerFast:
    """With its first, most common tokens alone: a search over all thirty thousand takes far longer."""
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    described["model"]["vocab"] = {token: id for token, id in described["model"]["vocab"].items() if id < size}
    backend = Tokenizer.from_str(json.dumps(described))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **tokenizer.special_tokens_map)


@pytest.fixture(scope="module")
def invert(encoder):
    """A pipeline of a model that is loaded already, with a surrogate."""
    common = of_common_tokens(encoder.tokenizer)
    tokenizer, model = prepare_tokenizer(common), new_tiny_inverter(common)
    model.add_surrogate(2)
    with torch.no_grad():
        model.decoder.weight.mul_(50)  # over thousands of equal words, rounding decides on the one that is drawn
    return pipeline("embedding-inversion", model=model.eval(), tokenizer=tokenizer)


@pytest.mark.parametrize("settings", [dict(strategy="euler"), dict(temperature=1.0), SEARCH])
def test_the_batch_size_changes_no_text(invert, settings):
    """Noise seeded anew for each batch: texts that depend on the batch size, and the same one for equal vectors."""
    vectors = unit_vectors(3)[[0, 1, 2, 0]]
    texts = [[row["text"] for row in invert(vectors, batch_size=size, seed=3, **settings)] for size in (4, 1, 3, 4)]
    assert texts[0] == texts[1] == texts[2] == texts[3]
    assert texts[0][0] != texts[0][3]
    assert texts[0] != [row["text"] for row in invert(vectors, seed=4, **settings)]
    generator = torch.Generator().manual_seed(3)
    assert texts[0] == [row["text"] for row in invert(vectors, generator=generator, **settings)]


def test_pipeline_of_a_loaded_model(invert, tmp_path):
    """`pipeline` did not know the task of a model object; what it saves must load again."""
    assert type(invert).__name__ == "EmbeddingInversionPipeline"
    rows = invert(unit_vectors(2), seed=2)
    same = pipeline("embedding-inversion", model=invert.model, tokenizer=invert.tokenizer, batch_size=1, seed=2)
    assert [row["text"] for row in same(unit_vectors(2))] == [row["text"] for row in rows]
    texts = [[row["text"] for row in same(unit_vectors(2), temperature=1.0, **seed)] for seed in ({}, {"seed": 5})]
    assert texts[0] == [row["text"] for row in invert(unit_vectors(2), temperature=1.0, seed=2)] != texts[1]
    invert.save_pretrained(tmp_path)
    again = pipeline("embedding-inversion", model=str(tmp_path), trust_remote_code=True)
    assert [row["text"] for row in again(unit_vectors(2), seed=2)] == [row["text"] for row in rows]
    with pytest.raises(ValueError, match="needs the model's tokenizer"):
        invert.model.as_pipeline(None)


def test_pipeline_reads_an_iterator_as_it_comes(invert):
    """A generator was taken for one object of no shape; a whole table of vectors need not be in memory."""
    vectors, taken = unit_vectors(5), []
    stream = invert((taken.append(row) or row for row in vectors), batch_size=2, temperature=1.0)
    rows = [next(stream)["text"]]
    assert len(taken) < 5
    rows += [row["text"] for row in stream]
    assert rows == [row["text"] for row in invert(vectors, temperature=1.0)]
    assert list(invert(iter([]))) == []
    with pytest.raises(ValueError, match="embedding 3 is all zeros"):
        list(invert(iter([*unit_vectors(3), torch.zeros(16)]), batch_size=2))
    with pytest.raises(ValueError, match="embedding 3 is all zeros"):
        invert([*unit_vectors(3), torch.zeros(16)], batch_size=2)


def test_pipeline_reads_the_columns_of_tables(invert):
    """A column of datasets, of pandas and of transformers' KeyDataset is neither an array nor a list of lists."""
    import pandas
    from datasets import Dataset
    from transformers.pipelines.pt_utils import KeyDataset

    table = Dataset.from_dict({"embedding": unit_vectors(3).tolist()})
    expected = [row["text"] for row in invert(unit_vectors(3))]
    assert len(set(expected)) == 3  # rows in another order would be seen
    columns = table["embedding"], KeyDataset(table, "embedding"), pandas.Series(unit_vectors(3).tolist())
    for column in (*columns, table.with_format("torch")["embedding"], table.to_iterable_dataset()["embedding"]):
        assert [row["text"] for row in invert(column)] == expected, type(column)
    with pytest.raises(ValueError, match="embeddings must be"):
        invert(table)


def test_pipeline_returns_the_cosine_with_feedback(invert):
    """A search that returns no cosine leaves its reader without a measure of the text."""
    for settings in (SEARCH, dict(feedback="surrogate"), dict(feedback=lambda texts: unit_vectors(len(texts)))):
        rows = invert(unit_vectors(2), **settings)
        assert all(-1.001 <= row["cosine"] <= 1.001 for row in rows)


def test_a_pipeline_can_be_printed(invert):
    """transformers 5.23 asks the model what it writes: `print(pipe)` ended in an AttributeError."""
    assert "EmbeddingInversionPipeline" in repr(invert)
    assert invert.model.output_modalities == ("text",)


QUICK = dict(num_tokens=1, num_proposals=4, num_beams=2, num_sweeps=1)


def test_pipeline_fills_redacted_texts(invert):
    """Texts in another order than their vectors, a batch size that changes them, or other fields than the command."""
    vectors, texts = unit_vectors(3), ["a ▇▇▇ is here", "we met <NAME>", "it [COSTS] much"]
    rows = invert(vectors, texts=texts, **QUICK)
    filled = invert.model.fill(vectors, texts, tokenizer=invert.tokenizer, **QUICK).texts
    assert rows == [text.as_dict() for text in filled]
    assert [row["gaps"][0]["mark"] for row in rows] == ["▇▇▇", "<NAME>", "[COSTS]"]
    assert [row["text"] for row in invert(vectors, texts=texts, batch_size=2, **QUICK)] == [
        row["text"] for row in rows
    ]
    assert invert(vectors[0], texts=texts[0], **QUICK)["text"] == rows[0]["text"]
    judged = invert(vectors[:1], texts=texts[:1], feedback=lambda texts: unit_vectors(len(texts)), **QUICK)
    assert judged[0]["cosine"] == pytest.approx(1.0) and judged[0]["verdict"] == "verified"
    seeded = pipeline("embedding-inversion", model=invert.model, tokenizer=invert.tokenizer, seed=2)
    assert seeded(vectors[0], texts=texts[0], **QUICK)["text"] == rows[0]["text"]


def test_filling_takes_a_seed_and_a_generator_alike(invert):
    """Nothing is drawn for gaps: any seed was taken, and a generator was an unknown setting."""
    arguments = dict(embeddings=unit_vectors(1)[0], texts="a ▇▇▇ is here", **QUICK)
    assert invert(**arguments, seed=3) == invert(**arguments, generator=torch.Generator()) == invert(**arguments)


def test_pipeline_numbers_the_rows_of_a_round_among_all(invert):
    """Rows of the second batch had the numbers of the first: a table of the progress wrote over itself."""
    rounds = []
    given = dict(batch_size=2, num_candidates=2, feedback=lambda texts: unit_vectors(len(texts)))
    invert(unit_vectors(3), on_round=lambda one: rounds.append(one.rows.tolist()), **given)
    assert rounds == [[0, 1], [2]]


def test_pipeline_tells_once_of_lists_that_no_mark_asks_for(invert):
    """A list for the second batch was told as a mistake in the first, and a mistake in every batch."""
    texts, choices = ["a ▇▇▇ is here", "we met <NAME>"], {"name": ["anna", "bob"], "PLACE": ["oslo"]}
    with pytest.warns(UserWarning, match="choices for 'PLACE': no mark") as warned:
        rows = invert(unit_vectors(2), texts=texts, choices=choices, batch_size=1, **QUICK)
    assert len(warned) == 1 and rows[1]["gaps"][0]["text"] in choices["name"]


@pytest.mark.parametrize(
    "texts, settings, message",
    [
        (["a ▇▇▇"] * 2, {}, "got 1 vectors and 2 texts"),
        (["a"], {}, "text 0 has no gap"),
        (["a"], dict(first_row=3), "text 3 has no gap"),
        (["a ▇▇▇"], dict(first_row="3"), "first_row must be a whole number of at least 0, got '3'"),
        (["a ▇▇▇"], dict(temperature=1.0), "unknown fill setting"),
        (["a ▇▇▇"], dict(tokenizer=None), "takes no tokenizer"),
        (["a ▇▇▇"], dict(feedback="orcale"), "feedback must be"),
        (["a ▇▇▇"], dict(seed="x"), "seed must be a whole number from 0 to"),
        (["a ▇▇▇"], dict(generator=1), "generator must be a torch.Generator"),
        (["a ▇▇▇"], dict(seed=1, generator=torch.Generator()), "a seed or a generator"),
    ],
)
def test_pipeline_refuses_texts_that_it_cannot_fill(invert, texts, settings, message):
    """A setting of `generate` that is ignored, or a text too many that is dropped."""
    with pytest.raises(ValueError, match=message):
        invert(unit_vectors(1), texts=texts, **settings)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(seed=-1), "seed must be a whole number from 0 to"),
        (dict(seed=2**64), "seed must be a whole number from 0 to"),
        (dict(seed="1"), "seed must be a whole number from 0 to"),
        (dict(seed=1, generator=torch.Generator()), "a seed or a generator"),
        (dict(generator=1), "generator must be a torch.Generator"),
        (dict(batch_size=0), "batch_size must be a whole number from 1"),
        (dict(batch_size=1.5), "batch_size must be a whole number from 1"),
        (dict(draft_ids=torch.zeros(1, 12)), "takes no draft_ids"),
        (dict(tokenizer=None), "takes no tokenizer"),
        (dict(do_sample=True), "use temperature"),
        (dict(feedback="orcale"), "feedback must be"),
        (dict(streamer=7), "streamer must have"),
        (dict(inputs=[1.0]), "give vectors as embeddings"),
    ],
)
@pytest.mark.parametrize("rows", [0, 1])
def test_pipeline_refuses_what_it_cannot_do(invert, settings, message, rows):
    """A seed out of range is an error of torch's; drafts of all vectors do not fit a batch of them."""
    with pytest.raises(ValueError, match=message):
        invert(unit_vectors(rows), **settings)


def test_an_iterator_of_batches_is_one_line(invert):
    """A DataLoader's batches ended in numpy's "inhomogeneous shape after 1 dimensions"."""
    vectors = unit_vectors(5)
    batches = ([vectors[:3], vectors[3:]], [[vectors[:3]], [vectors[3:]]], [vectors.tolist()], [vectors.numpy()])
    for given in batches:
        with pytest.raises(ValueError, match="an iterator must give one vector at a time, got a batch; take it apart"):
            list(invert(iter(given), preset="quick"))
    for rows in (iter(vectors), iter(vectors.tolist()), (vector for batch in batches[0] for vector in batch)):
        assert len(list(invert(rows, preset="quick"))) == 5


def test_config_names_no_folder_of_this_machine(encoder, tmp_path):
    """The encoder's path on the machine that trained, its user's name in it, was published with the checkpoint."""
    model = new_inverter(prepare_tokenizer(encoder.tokenizer), encoder.path, embedding_dim=16, max_sequence_length=12)
    model.config.save_pretrained(tmp_path)
    assert str(Path(encoder.path).parent) not in (tmp_path / "config.json").read_text()


def test_shipped_files_import_torch_and_transformers_alone():
    """transformers refuses to load a folder whose code imports what the user lacks."""
    package = Path(__file__).parents[2] / "modeling_embinv"
    allowed = {"torch", "transformers", "huggingface_hub", "numpy", *sys.stdlib_module_names}
    for name in SHIPPED:
        text = (package / name).read_text()
        assert "from __future__" not in text
        for line in text.splitlines():
            if line.startswith(("import ", "from ")) and not line.startswith("from ."):
                assert line.split()[1].split(".")[0] in allowed, (name, line)
            if line.startswith("from ."):
                assert line.split()[1][1:] + ".py" in SHIPPED, (name, line)


def test_a_tokenizer_without_mask_gets_one(encoder, tmp_path):
    """Decoder-only tokenizers have no [MASK]; its new row must exist in the trunk and never be written."""
    tokenizer = encoder.tokenizer.__class__.from_pretrained(encoder.path)
    tokenizer.mask_token = None
    prepared = prepare_tokenizer(tokenizer)
    assert prepared.mask_token_id is not None and tokenizer.mask_token is None
    model = new_inverter(prepared, TRUNK, embedding_dim=16, max_sequence_length=12)
    assert model.config.mask_token_id == prepared.mask_token_id < model.config.vocab_size == len(prepared)
    assert not (model.generate(unit_vectors(2)).sequences == prepared.mask_token_id).any()


def test_another_vocabulary_takes_the_rows_of_its_own_tokens(encoder, tmp_path):
    """mmBERT's row 1,234 is another word than Qwen's: copied by number, every token would start as a stranger.

    An end token of another name would start at random, and half of all positions are ends.
    """
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    source = AutoModel.from_config(AutoConfig.for_model(**TRUNK, vocab_size=30522))
    source.save_pretrained(tmp_path)
    names = {"[SEP]": "</s>", "hello": "unheard"}
    known = encoder.tokenizer.get_vocab()
    shuffled = {names.get(token, token): (index + 1) % 30522 for token, index in known.items()}
    wordpiece = Tokenizer(models.WordPiece(shuffled, unk_token="[UNK]"))
    theirs = PreTrainedTokenizerFast(tokenizer_object=wordpiece, unk_token="[UNK]", eos_token="</s>")
    theirs.save_pretrained(tmp_path)
    tokenizer = prepare_tokenizer(encoder.tokenizer)
    layer, rows = "encoder.layer.0.output.dense.weight", "embeddings.word_embeddings.weight"
    stranger = new_inverter(tokenizer, tmp_path, embedding_dim=16, max_sequence_length=12).trunk.state_dict()
    assert torch.equal(stranger[layer], source.state_dict()[layer])
    expected = source.state_dict()[rows].roll(-1, dims=0)
    differ = (stranger[rows] != expected).any(dim=1).nonzero().squeeze(1).tolist()
    assert differ == [known["hello"]]
    encoder.tokenizer.save_pretrained(tmp_path)
    friend = new_inverter(tokenizer, tmp_path, embedding_dim=16, max_sequence_length=12).trunk.state_dict()
    assert torch.equal(friend[rows], source.state_dict()[rows])


def test_loading_inside_the_package_asks_nothing(folder, monkeypatch):
    """AutoTokenizer reads the config too: on a terminal it asked whether to run custom code, and waited."""
    import builtins

    from modeling_embinv.loading import load_inverter

    def refuse(prompt=""):
        raise AssertionError(f"a command line must not ask: {prompt}")

    monkeypatch.setattr(builtins, "input", refuse)
    model, tokenizer = load_inverter(folder)
    assert type(model).__module__ == "modeling_embinv.modeling_embinv" and tokenizer.mask_token == "[MASK]"
    assert type(AutoModel.from_pretrained(folder, trust_remote_code=True)).__name__ == type(model).__name__


def test_the_pipeline_warns_at_the_line_of_its_caller(invert):
    """The warning was at a line of transformers, which Python shows once: of a second mistake it said nothing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        invert(3 * unit_vectors(2), num_candidates=2)
    assert caught and {one.filename for one in caught} == {__file__}


def test_the_pipeline_has_presets(invert):
    """A preset that is handed on as a setting, that is lost when it was given early, or that changes nothing."""
    vectors = unit_vectors(2)
    texts = {name: [row["text"] for row in invert(vectors, preset=name)] for name in ("quick", "standard")}
    for judged in (invert(vectors)[0], invert(vectors, preset="quick")[0]):
        assert judged["verdict"] == verdict_of(judged["cosine"], "surrogate") and judged["verdict_in_words"]
    unjudged = invert(vectors, preset="quick", feedback=None)
    assert [row["text"] for row in unjudged] == texts["quick"] and "cosine" not in unjudged[0]
    assert [row["text"] for row in invert(vectors)] == texts["standard"] != texts["quick"]
    drafts = invert(vectors, num_steps=8)
    assert [row["text"] for row in drafts] == texts["quick"]
    assert drafts == invert(vectors, preset="quick")  # measured by the surrogate as well
    assert "cosine" not in invert(vectors, num_candidates=2)[0]  # ranked by likelihood alone
    early = pipeline("embedding-inversion", model=invert.model, tokenizer=invert.tokenizer, preset="quick")
    assert [row["text"] for row in early(vectors)] == texts["quick"]
    assert [row["text"] for row in early(vectors, preset="standard")] == texts["standard"]
    with pytest.raises(ValueError, match="preset must be one of"):
        invert(vectors, preset="slow")
    with pytest.raises(ValueError, match="a preset is of inverted vectors"):
        invert(vectors[0], texts="a ▇▇▇ is here", preset="quick")


def test_a_pipeline_without_a_surrogate_says_what_it_does(folder):
    """A default that fails on most checkpoints, or does less in silence."""
    invert = pipeline("embedding-inversion", model=str(folder), trust_remote_code=True)
    with pytest.warns(UserWarning, match="no surrogate, so the preset is quick"):
        rows = invert(unit_vectors(2))
    assert [row["text"] for row in rows] == [row["text"] for row in invert(unit_vectors(2), preset="quick")]
    with pytest.raises(ValueError, match="the preset standard needs a surrogate"):
        invert(unit_vectors(2), preset="standard")
