"""Confidence: what it rests on, how it is fitted, and that a search does not borrow the open loop's."""

import json
from dataclasses import asdict

import pytest
import torch

from modeling_embinv import EmbInvError
from modeling_embinv.cli.main import main
from modeling_embinv.data.pairs import read_manifest
from modeling_embinv.evaluation.calibration import (
    CANDIDATES,
    WrittenTokens,
    cross_fitted,
    expected_calibration_error,
    fit_calibration,
    written_tokens,
)
from modeling_embinv.generation_config_embinv import Calibration, EmbInvGenerationConfig, evidence
from modeling_embinv.progress import bar
from modeling_embinv.training.backbone import prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from tests.hub.tiny_folder import new_tiny_inverter
from tests.tiny_models import END, MASK, awaken, tiny_model, unit_vectors

TRUTH = Calibration(probability=0.5, length=-1.2, nearness=1.5, bias=0.7)


def tokens_of(calibration: Calibration, count: int = 30_000) -> WrittenTokens:
    """Tokens that are right as often as a calibration says."""
    generator = torch.Generator().manual_seed(0)
    confidence = torch.sigmoid(3 * torch.randn(count, generator=generator))
    size = torch.randint(3, 32, (count,), generator=generator)
    cosine = 1 - 10 ** (-4 * torch.rand(count, generator=generator))
    likely = calibration.weigh(evidence(confidence, size, cosine))
    correct = torch.rand(count, generator=generator) < likely
    return WrittenTokens(confidence, correct, size, cosine, torch.arange(count) // 10)


def test_calibration_is_recovered():
    """A weight with the wrong sign makes long texts, or texts that are far from their vector, surer."""
    tokens = tokens_of(TRUTH)
    fitted = fit_calibration(tokens)
    assert fitted.probability == pytest.approx(TRUTH.probability, rel=0.1)
    assert fitted.length == pytest.approx(TRUTH.length, rel=0.1)
    assert fitted.nearness == pytest.approx(TRUTH.nearness, rel=0.1)
    after = expected_calibration_error(tokens.calibrated(fitted), tokens.correct)
    assert after < 0.02 < expected_calibration_error(tokens.confidence, tokens.correct)
    with pytest.raises(ValueError, match="right and wrong"):
        fit_calibration(tokens.where(tokens.correct))


def test_fit_stays_finite_where_every_near_text_is_right():
    """Without decay the likelihood grows for ever with the weight, and the saved number is infinite or NaN."""
    cosine = torch.tensor([0.9999, 0.5]).repeat(200)
    tokens = WrittenTokens(torch.full((400,), 0.5), cosine > 0.9, torch.full((400,), 8), cosine, torch.arange(400))
    fitted = fit_calibration(tokens)
    assert 0 < fitted.nearness < 100
    assert tokens.calibrated(fitted)[0] > 0.95 and tokens.calibrated(fitted)[1] < 0.05


@pytest.mark.parametrize("p, share", [(0.9, 0.5), (0.9, 0.25), (0.2, 0.75), (1.0, 0.75)])
def test_a_confidence_that_never_varies_becomes_the_share_of_right_tokens(p, share):
    """Its weight was fitted without it and applied to it: of tokens of 0.9, half of them right, it said 0.9."""
    correct = torch.arange(400) < 400 * share
    tokens = WrittenTokens(torch.full((400,), p), correct, torch.full((400,), 8), torch.zeros(400), torch.arange(400))
    fitted = fit_calibration(tokens)
    assert tokens.calibrated(fitted).tolist() == pytest.approx([share] * 400, abs=0.005)
    assert fitted.probability == 1  # nothing says how much a change of p would mean


def test_cross_fit_is_no_better_than_new_texts():
    """An error that is measured on the very texts of the fit is too small."""
    noise = tokens_of(Calibration(probability=0.01), count=120)
    own = expected_calibration_error(noise.calibrated(fit_calibration(noise)), noise.correct)
    assert expected_calibration_error(cross_fitted(noise), noise.correct) > own


def test_expected_calibration_error_by_hand():
    """Weights by count, distance absolute."""
    confidence = torch.tensor([0.95, 0.95, 0.95, 0.25])
    correct = torch.tensor([True, True, False, True])
    assert expected_calibration_error(confidence, correct) == pytest.approx((3 * abs(0.95 - 2 / 3) + 0.75) / 4)


def test_masked_and_given_tokens_keep_their_confidence():
    """0 stands for a masked position and 1 for a token that the user gave; the order of the others stays."""
    ids = torch.tensor([[5, 6, 7, MASK, END]])
    confidence = torch.tensor([[1.0, 0.3, 0.6, 0.0, 0.9]])
    known = torch.tensor([[True, False, False, True, False]])
    found = TRUTH(confidence, ids, END, torch.tensor([0.9]), known)
    assert found[0, 0] == 1 and found[0, 3] == 0
    assert found[0, 1] < found[0, 2] < found[0, 4]
    assert torch.equal(Calibration()(confidence, ids, END), confidence)
    shorter = TRUTH(confidence, torch.tensor([[5, 6, 7, END, END]]), END, torch.tensor([0.9]), known)
    assert (shorter[0, 1:3] > found[0, 1:3]).all()


@pytest.mark.parametrize("settings", [{}, {"guidance_scale": 3.0}, {"num_candidates": 2, "max_length": 4}])
def test_no_written_token_is_certain(settings):
    """A probability that float32 rounds to 1 became a confidence of exactly 1, which is that of given tokens."""
    model = awaken(tiny_model())
    model.decoder.bias.data[7] = 60.0
    model.generation_config.calibration = dict.fromkeys(("open_loop", "candidates"), asdict(TRUTH))
    written = model.generate(unit_vectors(2), **settings)
    assert (written.sequences == 7).all() and (written.confidence > 0).all() and (written.confidence < 1).all()
    if not settings:
        draft = torch.tensor([[5, 6] + [MASK] * 10] * 2)
        output = model.generate(unit_vectors(2), draft_ids=draft, num_steps=2, return_history=True)
        for ids, confidence in zip(output.history, output.history_confidence, strict=True):
            assert (confidence[:, :2] == 1).all() and (confidence[ids == MASK] == 0).all()
            assert (confidence[:, 2:] < 1).all() and (confidence[:, 2:] > 0).equal(ids[:, 2:] != MASK)


def test_the_fit_and_what_it_is_used_for_have_the_same_bounds():
    """The error of a fit was measured with certain tokens, which the fit itself had not seen."""
    tokens = WrittenTokens(
        torch.tensor([1.0, 0.0]), torch.ones(2), torch.full((2,), 8), torch.zeros(2), torch.arange(2)
    )
    found, ids = tokens.calibrated(TRUTH), torch.tensor([[5] * 7 + [END]])
    assert 0 < found[1] < found[0] < 1
    assert torch.equal(TRUTH(torch.ones(1, 8), ids, END), found[:1].expand(1, 8))


def words(model):
    """An encoder of the tests: a text's vector is made of its tokens."""
    table = unit_vectors(model.config.vocab_size, seed=7)

    def embed(ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(table[ids].sum(dim=1), dim=1)

    return embed


@pytest.mark.parametrize("kind", ["open_loop", "candidates", "encoder"])
def test_each_kind_of_confidence_has_its_own_calibration(kind):
    """The open loop's temperature was applied to a search's likelihoods.

    Texts that came back whole, with a cosine of 1, got a mean confidence of 0.51.
    """
    model = awaken(tiny_model())
    settings = dict(num_steps=2)
    if kind != "open_loop":
        settings |= dict(num_candidates=3)
    if kind == "encoder":
        settings |= dict(num_corrections=1, feedback=words(model))
    vectors = unit_vectors(4)

    def confidence(calibration):
        generator = torch.Generator().manual_seed(0)
        return model.generate(vectors, generator=generator, calibration=calibration, **settings)

    raw = confidence(None)
    others = {name: {"bias": -9.0} for name in ("open_loop", "candidates", "surrogate", "encoder") if name != kind}
    assert torch.equal(confidence(others).confidence, raw.confidence)
    own = confidence({kind: dict(probability=0.5, length=-1.2, nearness=1.5, bias=0.7)}).confidence
    filled = raw.sequences.masked_fill(raw.confidence == 0, END)
    expected = TRUTH(raw.confidence, filled, END, raw.cosine)
    assert torch.allclose(own, expected.masked_fill(raw.confidence == 0, 0.0), atol=1e-6)


def test_older_files_hold_a_temperature(tmp_path):
    """Checkpoints from before had T and b of the open loop alone: they must load, and mean what they meant."""
    old = {"confidence_temperature": 2.0, "confidence_bias": -1.0}
    (tmp_path / "generation_config.json").write_text(json.dumps(old))
    loaded = EmbInvGenerationConfig.from_pretrained(tmp_path)
    assert loaded.calibration == {"open_loop": {"probability": 0.5, "bias": -1.0}}
    loaded.save_pretrained(tmp_path)
    assert EmbInvGenerationConfig.from_pretrained(tmp_path).calibration == loaded.calibration
    p = torch.tensor([[0.7]])
    expected = torch.sigmoid(torch.logit(p) / 2 - 1)
    assert torch.allclose(loaded.calibration_of("open_loop")(p, torch.tensor([[5]]), END), expected)
    assert loaded.calibration_of("encoder") == Calibration()


@pytest.mark.parametrize(
    "content, message",
    [
        ([1], r"generation_config.json must hold a table of settings, got \[1\]"),
        (None, "generation_config.json must hold a table of settings, got None"),
        ({"confidence_temperature": "1"}, "confidence_temperature must be a number above 0, got '1'"),
        ({"confidence_temperature": 0}, "confidence_temperature must be a number above 0, got 0"),
        ({"confidence_temperature": []}, r"confidence_temperature must be a number above 0, got \[\]"),
        ({"confidence_bias": "a"}, "bias of a calibration must be a finite number, got 'a'"),
        ({"confidence_bias": 10**400}, "bias of a calibration must be a finite number, got 1000"),  # OverflowError
        ({"confidence_bias": ""}, "bias of a calibration must be a finite number, got ''"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, content, message):
    """A file that holds a list, or a word for a number, ended in a TypeError of somebody's code."""
    (tmp_path / "generation_config.json").write_text(json.dumps(content))
    with pytest.raises(EmbInvError, match=message):
        EmbInvGenerationConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("settings", [{"confidence_temperature": 5.0}, {"confidence_bias": 1.0}])
def test_a_call_takes_no_temperature_of_older_files(settings):
    """Once the checkpoint had a calibration, it was taken in a call and changed nothing."""
    model = tiny_model()
    for calibration in (None, {"open_loop": {"bias": 1.0}}):
        model.generation_config.calibration = calibration
        with pytest.raises(EmbInvError, match=f"unknown generation argument {next(iter(settings))}: use calibration"):
            model.generate(unit_vectors(1), **settings)
    with pytest.raises(EmbInvError, match="use calibration"):
        EmbInvGenerationConfig(**settings)


@pytest.mark.parametrize(
    "calibration",
    [
        3, {"closed": {}}, {"encoder": {"slope": 1.0}}, {"encoder": {"bias": "a"}}, {"encoder": 5},
        {"encoder": {"bias": float("nan")}}, {"encoder": {"probability": 0.0}},
    ],
)  # fmt: skip
def test_impossible_calibrations_are_refused(calibration):
    """A damaged file gave NaN for every confidence."""
    with pytest.raises(ValueError, match="calibration"):
        EmbInvGenerationConfig(calibration=calibration)


def test_written_tokens_are_those_of_the_texts():
    """What stands behind the end token would count as right and make every model look sure and honest."""
    model = awaken(tiny_model())
    vectors = unit_vectors(5)
    output = model.generate(vectors, calibration=None)
    shown = output.confidence > 0
    target = torch.where(shown, output.sequences, END)
    tokens = written_tokens(model, target, vectors, batch_size=2)
    assert tokens.correct.all() and len(tokens.correct) == int(shown.sum())
    assert torch.allclose(tokens.confidence.sort().values, output.confidence[shown].sort().values, atol=1e-5)
    assert tokens.text.unique().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(torch.bincount(tokens.text), shown.sum(dim=1))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, encoder, pairs):
    """A folder of an inverter that writes "near" everywhere: right once a text, and wrong elsewhere."""
    sizes = dict(embedding_dim=384, max_sequence_length=16, encoder_id=read_manifest(pairs)["encoder_id"])
    model, tokenizer = new_tiny_inverter(encoder.tokenizer, **sizes), prepare_tokenizer(encoder.tokenizer)
    with torch.no_grad():
        model.decoder.bias[tokenizer.convert_tokens_to_ids("near")] = 6
    model.generation_config.calibration = {"open_loop": {"bias": -1.7}}
    return export(model, tokenizer, tmp_path_factory.mktemp("calibrate") / "model")


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch):
    """Two of each vector, where 32 take far longer; all else is as the command has it."""
    monkeypatch.setitem(CANDIDATES, "num_candidates", 2)


def calibrated(checkpoint, pairs, limit: int, **settings) -> tuple[int, dict]:
    """The status of the command, and the folder's calibration after it, for a checkpoint with these own settings."""
    path = checkpoint / "generation_config.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), **settings}))
    try:
        code = main(["calibrate", str(pairs), "--model", str(checkpoint), "--limit", str(limit)])
        return code, json.loads(path.read_text())["calibration"]
    finally:
        path.write_text(before)


def test_a_fit_that_cannot_be_checked_is_not_saved(capsys, checkpoint, pairs):
    """A fit of one text took the place of a good calibration, and only then was it said that it needs more."""
    assert calibrated(checkpoint, pairs, 1) == (2, {"open_loop": {"bias": -1.7}})
    assert "give more texts" in capsys.readouterr().err


def test_a_checkpoint_of_shorter_texts_is_calibrated(checkpoint, pairs):
    """Texts of a `max_length` below the canvas were compared with whole canvases, which ended in a traceback."""
    code, calibration = calibrated(checkpoint, pairs, 8, max_length=6)
    assert code == 0 and set(calibration) == {"open_loop", "candidates"}


def test_a_checkpoint_that_searches_is_calibrated_as_any_other(checkpoint, pairs):
    """The open loop of a checkpoint whose own settings search was fitted on texts of a search, or not at all."""
    plain = calibrated(checkpoint, pairs, 4)
    assert plain[0] == 0 and set(plain[1]) == {"open_loop", "candidates"}
    for search in ({"num_candidates": 4}, {"num_corrections": 1}):
        assert calibrated(checkpoint, pairs, 4, **search) == plain, search


def test_a_calibration_says_how_far_it_is(monkeypatch, capsys, checkpoint, pairs):
    """The searches that are fitted take minutes, and nothing was to be seen before each had ended."""
    monkeypatch.setattr(bar, "LINE_SECONDS", 0.0)
    assert calibrated(checkpoint, pairs, 4)[0] == 0
    shown = capsys.readouterr().err
    assert f"open_loop, {pairs}: 4 of 4 vectors" in shown and f"candidates, {pairs}: 4 of 4 vectors" in shown
