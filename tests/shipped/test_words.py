"""The word head: its shapes, its place in the checkpoint, which tokens are words, and how sure it is of them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from modeling_embinv import EmbInvForMaskedDiffusion
from modeling_embinv.data.tokens import tokenize
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.evaluation.calibration import expected_calibration_error
from modeling_embinv.evaluation.word_scores import average_precision, fit_words, ratio
from modeling_embinv.fingerprint_embinv import Fingerprint
from modeling_embinv.generation_config_embinv import Calibration
from modeling_embinv.vocabulary_embinv import WordVocabulary
from modeling_embinv.words_embinv import word_evidence
from tests.hub.tiny_folder import new_tiny_inverter
from tests.tiny_models import END, VOCAB, texts, tiny_model, unit_vectors


def with_words(family: str = "bert", **overrides) -> EmbInvForMaskedDiffusion:
    """A model whose word head has left its start."""
    model = tiny_model(family, word_head_size=8, **overrides)
    torch.nn.init.normal_(model.word_head.dense_out.weight, std=3.0)
    torch.nn.init.normal_(model.word_head.bias)
    return model


@pytest.fixture(scope="module")
def model(encoder):
    """A tiny inverter with all-MiniLM-L6-v2's vocabulary and a word head."""
    torch.manual_seed(0)
    model = new_tiny_inverter(encoder.tokenizer, word_head_size=8).eval()
    torch.nn.init.normal_(model.word_head.dense_out.weight, std=3.0)
    return model


def test_a_logit_for_each_token(family):
    """E · MLP(e) + b, by the trunk's own table; a head with a table of its own would follow nothing."""
    model, vectors = with_words(family), unit_vectors(5)
    logits = model.word_logits(vectors)
    assert logits.shape == (5, VOCAB)
    head, table = model.word_head, model.get_input_embeddings().weight
    hidden = head.dense_out(torch.nn.functional.gelu(head.dense_in(4 * vectors)))  # 4 = √16, the width
    torch.testing.assert_close(logits, hidden @ table.T + head.bias)
    assert not torch.allclose(logits[0], logits[1], atol=0.1)


def test_the_table_takes_no_gradient():
    """A table that learns with the head would spoil the inverter, which reads and writes by it."""
    model = with_words()
    model.word_logits(unit_vectors(5)).square().sum().backward()
    learning = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert learning == {f"word_head.{name}" for name, _ in model.word_head.named_parameters()}


def test_it_survives_saving_without_a_second_table(tmp_path):
    """A table copied into the head adds V × H numbers to every checkpoint; a forgotten size drops the head."""
    model, vectors = with_words(), unit_vectors(3)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    sizes = {name: tuple(weight.shape) for name, weight in stored.items() if name.startswith("word_head")}
    assert sizes == {
        "word_head.dense_in.weight": (8, 16), "word_head.dense_in.bias": (8,), "word_head.bias": (VOCAB,),
        "word_head.dense_out.weight": (32, 8), "word_head.dense_out.bias": (32,),
    }  # fmt: skip
    loaded = EmbInvForMaskedDiffusion.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded.word_logits(vectors), model.word_logits(vectors))
    loaded.add_word_head(8)  # one of that size stays
    torch.testing.assert_close(loaded.word_logits(vectors), model.word_logits(vectors))
    loaded.drop_word_head()
    loaded.save_pretrained(tmp_path / "without")
    assert not any(name.startswith("word_head") for name in load_file(tmp_path / "without" / "model.safetensors"))
    assert EmbInvForMaskedDiffusion.from_pretrained(tmp_path / "without").word_head is None


def test_older_checkpoints_load_and_say_that_they_have_none(tmp_path, encoder):
    """Configurations from before the head lack its key: they must load, and not fail later with an AttributeError."""
    new_tiny_inverter(encoder.tokenizer).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    del settings["word_head_size"], settings["checksums"]
    path.write_text(json.dumps(settings))
    old = EmbInvForMaskedDiffusion.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no word head.*word_head_size") as error:
        old.words(unit_vectors(1), encoder.tokenizer)
    assert "\n" not in str(error.value)


def test_words_are_whole_words(model, encoder):
    """Pieces ("##ing"), special tokens and punctuation are no words; nor may the threshold or the order be lost."""
    found = model.words(unit_vectors(3), encoder.tokenizer, threshold=0.3)
    p = model.word_probabilities(unit_vectors(3)).detach()
    ids = encoder.tokenizer.get_vocab()
    for row, chances in zip(found, p, strict=True):
        assert len(row) > 10 and all(word.isalnum() and word in ids for word, _ in row)
        values = [value for _, value in row]
        assert values == sorted(values, reverse=True) and values[-1] >= 0.3
        for word, value in row:
            assert value == pytest.approx(float(chances[ids[word]]))
    every = model.words(unit_vectors(1)[0], encoder.tokenizer, threshold=0)[0]
    assert len(every) == len({word for word, _ in every}) == sum(WordVocabulary.of(encoder.tokenizer).is_word)
    assert model.words(unit_vectors(3), encoder.tokenizer, threshold=0.3, most=4) == [row[:4] for row in found]
    assert model.words(unit_vectors(3), encoder.tokenizer, threshold=1.0) == [[], [], []]
    assert model.words([], encoder.tokenizer) == []


def test_probabilities_take_vectors_as_words_does(model):
    """An array was an AttributeError, a vector of another length had other probabilities, and a graph was built."""
    vectors = unit_vectors(3)
    p = model.word_probabilities(vectors)
    assert not p.requires_grad and p.dtype == torch.float32 and p.shape == (3, model.config.vocab_size)
    assert model.word_logits(vectors).requires_grad  # what training takes
    for same in (vectors.numpy(), vectors.tolist(), vectors.double()):
        assert torch.allclose(model.word_probabilities(same), p, atol=1e-6)
    assert torch.allclose(model.word_probabilities(vectors[0]), p[:1], atol=1e-6)
    with pytest.warns(UserWarning, match="not of length 1: normalising"):
        assert torch.allclose(model.word_probabilities(3 * vectors), p, atol=1e-6)
    for wrong, line in ((unit_vectors(1, 8), "must have shape"), (torch.zeros(1, 16), "embedding 0 is all zeros")):
        with pytest.raises(EmbInvError, match=line):
            model.word_probabilities(wrong)


@pytest.mark.parametrize("wrong", [None, "x", 7, {"a": 1}])
def test_what_is_no_tokenizer_is_one_line(model, wrong):
    """It was a TypeError or an AttributeError of Python's."""
    with pytest.raises(EmbInvError, match="tokenizer must be this model's tokenizer, got"):
        model.words(unit_vectors(1), wrong)


@pytest.mark.parametrize(
    "settings, line",
    [
        ({"threshold": 1.5}, "threshold must be a probability"), ({"threshold": "0.5"}, "threshold must be"),
        ({"most": 0}, "most must be a whole number"), ({"most": 2.0}, "most must be"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(model, encoder, settings, line):
    """A threshold in percent would return no words, as if the vector said nothing."""
    with pytest.raises(ValueError, match=line):
        model.words(unit_vectors(1), encoder.tokenizer, **settings)
    with pytest.raises(ValueError, match="must have shape"):
        model.words(unit_vectors(1, 8), encoder.tokenizer)


def test_numbers_of_numpy_are_numbers(model, encoder):
    """`most` and `threshold` of an array were refused."""
    rows = model.words(
        unit_vectors(2, model.config.embedding_dim), encoder.tokenizer, threshold=np.float32(0.0), most=np.int64(3)
    )
    assert [len(row) for row in rows] == [3, 3]


def test_vectors_of_another_encoder_are_told(model, encoder, monkeypatch):
    """Words of random numbers had calibrated probabilities, and nothing said whose vectors they were."""
    size = model.config.embedding_dim
    own = torch.nn.functional.normalize(unit_vectors(500, size) * torch.linspace(0.1, 3, size), dim=-1)
    monkeypatch.setattr(model.config, "encoder_fingerprint", Fingerprint.of(own).to_text())
    with pytest.warns(UserWarning, match="this model inverts vectors of"):
        model.words(unit_vectors(200, size), encoder.tokenizer)


def test_the_words_of_a_text(encoder):
    """The first piece of a longer word is no word of the text, nor is what fills the row; "don't" is two words."""
    tokenizer = encoder.tokenizer
    vocabulary = WordVocabulary.of(tokenizer)
    rows = tokenize(tokenizer, ["Tuberculosises and embeddings don't spread, cat. cat", "in 1999"])
    pieces = tokenizer.convert_ids_to_tokens(rows[0])
    assert pieces[:5] == ["tuberculosis", "##es", "and", "em", "##bed"]  # or the first words prove nothing
    width = max(map(len, rows)) + 2
    ids = torch.tensor([row + [encoder.vocabulary.end] * (width - len(row)) for row in rows])
    present = vocabulary.present(ids)
    found = [{vocabulary.words[token] for token in row.nonzero().flatten().tolist()} for row in present]
    assert found == [{"and", "don", "t", "spread", "cat"}, {"in", "1999"}]


def test_marked_beginnings_are_stripped():
    """Tokenizers that mark where words begin ("▁cat", then "s") have their words without the mark."""
    ids = {"</s>": 0, "<unk>": 1, "▁cat": 2, "s": 3, "▁sat": 4, ".": 5, "▁": 6, "▁7": 7}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    vocabulary = WordVocabulary.of(
        PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    )
    assert [word for word, is_word in zip(vocabulary.words, vocabulary.is_word, strict=True) if is_word] == [
        "cat", "sat", "7"
    ]  # fmt: skip
    assert vocabulary.present(torch.tensor([[2, 3, 4, 5, 0, 0]])).nonzero()[:, 1].tolist() == [4]


def test_calibration_keeps_the_order(model, encoder):
    """A calibrated probability that falls where the raw one rises would list the wrong words first."""
    vectors = unit_vectors(4)
    raw = model.words(vectors, encoder.tokenizer, threshold=0)
    model.generation_config.calibration = {"words": {"probability": 0.7, "length": -0.3, "bias": -0.4}}
    try:
        fitted = model.words(vectors, encoder.tokenizer, threshold=0)
    finally:
        model.generation_config.calibration = None
    for before, after in zip(raw, fitted, strict=True):
        assert [word for word, _ in before[:200]] == [word for word, _ in after[:200]]
        # logit p' = 0.7 · logit p − 0.3 · log n − 0.4: other numbers, none above the raw one's half here
        assert all(new != old for (_, old), (_, new) in zip(before[:50], after[:50], strict=True))


def test_calibration_meets_the_head():
    """Of words called at 0.8, eight in ten must be there; here the head is too sure, and more so in long texts."""
    generator = torch.Generator().manual_seed(0)
    logit = torch.randn(400, 300, generator=generator) * 2 - 2
    truth = Calibration(probability=0.5, length=-0.2, bias=0.3)
    p = logit.sigmoid()
    chance = truth.weigh(word_evidence(p))
    target = torch.rand(p.shape, generator=generator) < chance
    found = fit_words(p, target)
    assert found.probability == pytest.approx(0.5, abs=0.03)
    calibrated, listed = found.weigh(word_evidence(p)), p >= 0.01
    assert expected_calibration_error(calibrated[listed], target[listed]) < 0.01
    assert expected_calibration_error(p[listed], target[listed]) > 0.05
    near = (calibrated > 0.75) & (calibrated < 0.85)
    assert float(target[near].float().mean()) == pytest.approx(0.8, abs=0.03)


def test_average_precision_and_ratios():
    """By hand: hits at ranks 1 and 3 of two are (1 + 2/3) / 2; a ratio of sums is no mean of ratios."""
    scores, target = torch.tensor([[0.9, 0.5, 0.4, 0.1]]), torch.tensor([[True, False, True, False]])
    assert float(average_precision(scores, target)) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(scores, torch.zeros(1, 4, dtype=torch.bool)).isnan().all()
    parts, wholes = torch.tensor([1, 0]), torch.tensor([1, 3])
    assert ratio(parts, wholes).mean == 0.25 and ratio(parts, wholes, by_text=True).mean == 0.5
    assert ratio(torch.tensor([0]), torch.tensor([0])) is None
    assert ratio(torch.tensor([1, 0]), torch.tensor([2, 0]), by_text=True).mean == 0.5


@pytest.mark.parametrize("levels", [1, 3, 100_000])
def test_average_precision_of_equal_scores_knows_no_order(levels):
    """Words of equal scores counted in the order of the vocabulary: a head that says nothing seemed to know some."""
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randint(levels, (4, 60), generator=generator) / levels
    target = torch.rand(4, 60, generator=generator) < 0.2
    expected = [average_precision_score(there, row) for there, row in zip(target.numpy(), scores.numpy(), strict=True)]
    assert average_precision(scores, target).tolist() == pytest.approx(expected)
    order = torch.randperm(60, generator=generator)
    shuffled = average_precision(scores[:, order], target[:, order])
    torch.testing.assert_close(shuffled, average_precision(scores, target))


def test_it_learns_which_tokens_a_text_has():
    """Gradient descent on the head alone must find the tokens of held-out texts by their vectors."""
    model, table = tiny_model(word_head_size=32), unit_vectors(VOCAB, seed=5)
    ids = texts(1024)
    vectors = torch.nn.functional.normalize((table[ids] * (ids != END)[..., None]).sum(dim=1), dim=-1)
    target = torch.zeros(len(ids), VOCAB).scatter_(1, ids, 1.0)
    target[:, END] = 0
    optimizer = torch.optim.AdamW(model.word_head.parameters(), lr=1e-2)
    for step in range(200):
        rows = torch.arange(128) + 128 * (step % 6)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model.word_logits(vectors[rows]), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    frequent = target[:768].mean(dim=0).expand(256, -1)
    found, blind = (average_precision(s, target[768:]).nanmean() for s in (model.word_logits(vectors[768:]), frequent))
    assert float(found) > float(blind) + 0.2
