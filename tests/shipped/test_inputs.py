"""What people give by mistake: a tokenizer's rows, functions of another kind, tables; and large batches."""

import runpy
import types
import warnings
from decimal import Decimal

import numpy as np
import pytest
import torch

from modeling_embinv import EmbInvError, generation_embinv, likelihood_embinv
from modeling_embinv.inputs_embinv import as_rows
from modeling_embinv.settings_embinv import SETTINGS
from tests.shipped.word_tokenizer import TOKENIZER
from tests.tiny_models import END, MASK, PAD, awaken, causal_model, texts, tiny_model, unit_vectors, with_surrogate

# a token that tokenizers put before a text, and one for words that they do not know
START, UNKNOWN = 1, 4
WHOLE = torch.tensor([[7, 8, END, PAD], [9, 10, 11, END]])
MARKED = torch.cat([torch.full((2, 1), START), WHOLE], dim=1)


def never_writes(model):
    """The same model, which never writes a tokenizer's own tokens."""
    model.generation_config.suppress_tokens = [PAD, START, MASK, UNKNOWN]
    return model


@pytest.mark.parametrize("name", ["embed", "log_likelihood", "draft_ids"])
def test_a_start_token_before_texts_is_told(name):
    """Ids as a tokenizer makes them had a cosine of 0.91, a likelihood of e⁻⁴⁶, and "[CLS]" in the text."""
    vectors = unit_vectors(2)
    model = never_writes(with_surrogate() if name == "embed" else causal_model())
    call = {
        "embed": model.embed,
        "log_likelihood": lambda ids: model.log_likelihood(ids, vectors),
        "draft_ids": lambda ids: model.generate(vectors, draft_ids=ids, max_length=ids.shape[1]),
    }[name]
    kind = "draft_ids" if name == "draft_ids" else "ids"
    with pytest.warns(UserWarning, match=rf"{kind} begin with token 1, .* leave it out: {kind}\[:, 1:\]"):
        call(MARKED)
    call(MARKED[:, 1:])  # as the warning says, and no warning
    unknown = WHOLE.clone()
    unknown[0, 0] = UNKNOWN  # a text may begin with a word that the tokenizer does not know
    call(unknown)
    masked = WHOLE.masked_fill(torch.arange(4) == 0, MASK)
    call(masked)
    with pytest.warns(UserWarning, match=f"{kind} hold padding, token 0, within texts: put the end token 2"):
        call(torch.tensor([[7, 8, PAD, PAD], [9, 10, 11, 12]]))  # as with padding and without special tokens


def test_redacted_ids_with_a_tokenizers_own_tokens_are_told():
    """The refusal of the end token behind the text said that the encoder would help; the start token was not named."""
    model = never_writes(with_surrogate())
    with (
        pytest.warns(UserWarning, match="texts begin with token 1, .*add_special_tokens=False"),
        pytest.raises(EmbInvError, match="text 0 ends with the end token, 2. .*add_special_tokens=False"),
    ):
        model.fill(unit_vectors(1), [[START, 7, MASK, 9, END]])
    assert model.fill(unit_vectors(1), [[7, MASK, 9]], num_sweeps=1).texts[0].gaps
    with pytest.raises(EmbInvError, match="text 0 holds the tokenizer's end token"):  # in the midst it may be meant
        model.fill(unit_vectors(1), [[7, END, MASK, 9]])


@pytest.mark.parametrize("error", [ValueError, RuntimeError, TypeError, AttributeError, KeyError])
def test_feedback_of_texts_without_a_tokenizer_is_one_line(error):
    """`feedback=st.encode` without `tokenizer=` ended in another library's "Modality 'audio' is not supported"."""
    model = with_surrogate()

    def encode(texts):
        if not isinstance(texts, list):
            raise error("Modality 'audio'\nis not supported")
        return unit_vectors(len(texts))

    calls = (
        lambda **given: model.generate(unit_vectors(2), feedback=encode, **given),
        lambda **given: model.generate(unit_vectors(2), feedback=encode, num_candidates=2, **given),
        lambda **given: model.fill(unit_vectors(1), [[7, MASK, 9]], feedback=encode, num_sweeps=1, **given),
    )
    for call in calls:
        with pytest.raises(EmbInvError, match="failed on token ids, .* tokenizer=, .*Modality 'audio'") as raised:
            call()
        assert "\n" not in str(raised.value) and isinstance(raised.value.__cause__, error)
        call(tokenizer=TOKENIZER)


def test_what_an_encoder_of_texts_raises_stays_its_own():
    """A judge that stops the run by an exception of its own must get it back; a tokenizer was given."""

    def refuse(texts):
        raise TypeError("the server is busy")

    with pytest.raises(TypeError, match="^the server is busy$"):
        tiny_model().generate(unit_vectors(1), feedback=refuse, tokenizer=TOKENIZER)


def test_the_class_of_a_tokenizer_is_refused():
    """It has a method decode, too, and ended in the TypeError of a call without self."""
    with pytest.raises(EmbInvError, match="tokenizer must be this model's tokenizer, got <class"):
        tiny_model().generate(
            unit_vectors(1), num_candidates=2, feedback=lambda _: unit_vectors(1), tokenizer=type(TOKENIZER)
        )


def test_a_large_unsigned_id_is_named_as_it_was_given():
    """It became −1 before it was named."""
    ids = np.full((1, 12), 2**64 - 1, dtype=np.uint64)
    with pytest.raises(EmbInvError, match="vocabulary of 60, got 18446744073709551615"):
        tiny_model().generate(unit_vectors(1), draft_ids=ids)


def test_only_integers_are_quantised():
    """Strings, tables and columns of objects were told to be decoded first, as if they were quantised."""
    vectors = unit_vectors(2).numpy()
    objects = vectors.astype(object)
    for given in (objects, [[Decimal(str(value)) for value in row] for row in vectors.tolist()]):
        assert np.allclose(as_rows(given, "embeddings"), vectors, atol=1e-6)
    dataset = types.SimpleNamespace(column_names=["embedding"], features={})
    for table in ({"embedding": vectors}, [{"embedding": row} for row in vectors], dataset):
        with pytest.raises(EmbInvError, match=r'got a table: give its column of vectors, as in ds\["embedding"\]'):
            as_rows(table, "embeddings")
    whole = np.ones((2, 3), np.int8)
    for quantised in (whole, torch.from_numpy(whole), whole.astype(object), whole.astype(bool)):
        with pytest.raises(EmbInvError, match="quantised vectors must be decoded first"):
            as_rows(quantised, "embeddings")
    with pytest.raises(EmbInvError, match="got whole numbers; quantised vectors must be decoded first"):
        as_rows([[10**30, 2]], "embeddings")  # too large for numpy's own
    with pytest.raises(EmbInvError, match="must be rows of numbers.*int too large"):
        as_rows([[10**400, 0.5]], "embeddings")
    objects[1, 3] = None
    strangers = {
        "NoneType": objects,
        "text": "abc",
        "str": np.array([["0.1", "0.2"]], object),
        "complex128": 1j * whole,
    }
    for kind, given in strangers.items():
        with pytest.raises(EmbInvError, match=rf"must be floating-point numbers, got {kind}\.$"):
            as_rows(given, "embeddings")


@pytest.mark.parametrize("strategy", SETTINGS["strategy"].choices)
def test_large_batches_are_written_in_parts(monkeypatch, strategy):
    """`generate` of 10,000 vectors was killed for memory; parts that draw other noise would write other texts."""
    model, vectors, seen = causal_model(), unit_vectors(7), []
    model.trunk.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    model.generation_config.calibration = {"open_loop": {"probability": 0.7, "length": -0.3}}
    settings = dict(strategy=strategy, temperature=1.0, num_steps=5, draft="autoregressive")
    draft = texts(7).masked_fill(torch.arange(12) % 2 == 0, MASK)

    def written(**more):
        seen.clear()
        return model.generate(vectors, generator=torch.Generator().manual_seed(3), **settings, **more)

    given = {} if strategy == "autoregressive" else {"draft_ids": draft}
    whole, drafted = written(), written(**given)
    monkeypatch.setattr(generation_embinv, "ROWS", 3)
    monkeypatch.setattr(generation_embinv, "CACHED_ROWS_CPU", 3)
    for expected, part in ((whole, written()), (drafted, written(**given))):
        assert 0 < max(seen) <= 3
        assert torch.equal(part.sequences, expected.sequences)
        assert torch.allclose(part.confidence, expected.confidence, atol=1e-4)
        passes = part.num_forward_passes, expected.num_forward_passes
        # the longest draft and the longest second stage of two_stage may be those of two parts
        assert passes[0] <= passes[1] if strategy == "two_stage" else passes[0] == passes[1]
    history = written(return_history=True)  # its canvases are of all vectors
    assert len(history.history[0]) == 7 and torch.equal(history.sequences, whole.sequences)


def test_likelihoods_of_many_texts_are_found_in_parts(monkeypatch):
    """One pass over 10,000 texts took gigabytes."""
    model, ids, vectors, seen = causal_model(), texts(7), unit_vectors(7), []
    expected = model.log_likelihood(ids, vectors)
    model.trunk.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    monkeypatch.setattr(likelihood_embinv, "TOKENS", 24)
    assert torch.allclose(model.log_likelihood(ids, vectors), expected, atol=1e-4) and max(seen) == 2


def test_checkpoints_that_may_write_all_tokens_warn_of_none():
    """A warning for every call of a checkpoint whose vocabulary has no tokens of its tokenizer's own."""
    model = awaken(tiny_model(surrogate_rank=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.embed(MARKED)


def test_warnings_are_at_the_line_of_the_caller():
    """They stood at a line of torch, and Python showed them once for a whole program: a second mistake was silent."""
    model, long = never_writes(causal_model()), 2 * unit_vectors(2)
    calls = [
        lambda: model.generate(long, num_steps=2),
        lambda: model.generate(long),
        lambda: model.log_likelihood(MARKED, long),
        lambda: never_writes(with_surrogate()).fill(long[:1], [[7, MASK, 8]]),
    ]
    for call in calls:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        assert caught and {one.filename for one in caught} == {__file__}
        assert len({one.lineno for one in caught}) == 1


def test_warnings_are_at_the_line_of_a_script_with_the_name_of_ours(tmp_path):
    """Scripts named use_embinv.py passed for the checkpoint's own code: a warning stood at a line of Python's."""
    script = tmp_path / "use_embinv.py"
    script.write_text("def call(model, vectors):\n    return model.generate(vectors, num_steps=2)\n", encoding="utf-8")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runpy.run_path(str(script))["call"](awaken(tiny_model()), 2 * unit_vectors(2))
    assert {(one.filename, one.lineno) for one in caught} == {(str(script), 2)}
