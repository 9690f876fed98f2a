"""The steps of an audit, and what the report says of those that could not be taken."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from modeling_embinv.audit.fingerprint import Origin
from modeling_embinv.audit.notes import sample_notes, step_notes
from modeling_embinv.audit.page import page
from modeling_embinv.audit.report import Report
from modeling_embinv.audit.run import Outcome, Plan, run
from modeling_embinv.audit.sample import Sample
from modeling_embinv.audit.terminal import lines
from modeling_embinv.training.backbone import prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from tests.audit.conftest import DATE, TEXTS, tier_result
from tests.audit.conftest import run as audit
from tests.hub.tiny_folder import new_tiny_inverter

pytestmark = pytest.mark.usefixtures("remembering")
FITS = Origin("model", "a/b", None)


def sample_of(vectors, texts) -> Sample:
    return Sample(vectors, np.arange(len(vectors)), None, texts, len(vectors), "d")


def report(sample, outcome, plan) -> Report:
    source = {"name": "d.parquet", "skipped": {"count": 0, "examples": []}}
    values = {name: value for name, value in vars(outcome).items() if name != "notes"}
    values |= {"sample": sample, "warnings": step_notes(outcome, plan)}
    return Report(source, {"name": "model"}, "a/b", seed=0, date=DATE, **values)


def test_without_faker_the_report_has_the_rest(attacker, vectors, monkeypatch):
    """Without a package for planted texts the audit of a store without texts ended after the attack."""
    monkeypatch.setitem(sys.modules, "faker", None)
    turned = vectors @ np.diag(np.sign(np.arange(384) % 7 - 0.5)).astype(np.float32)
    stored = sample_of(np.concatenate([vectors, turned]), None)
    plan = Plan(("vectors",), families=("int8",))
    outcome = run(attacker, sample_of(vectors[:2], None), stored, plan, None, [], FITS)
    assert len(outcome.tiers[0].recovered.texts) == 2 and not outcome.planted and outcome.defences is None
    notes = step_notes(outcome, plan)
    (missing,) = [note for note in notes if "faker" in note]
    assert missing.startswith("nothing is estimated: ") and "embinv[audit]" in missing and not missing.endswith(".")
    assert any(note.startswith("no defence was tried") for note in notes)


@pytest.mark.slow
def test_defences_of_planted_texts_are_an_estimate(attacker, vectors):
    """Without texts in the store, defences were tried on invented sentences, and nothing said so."""
    turned = vectors @ np.diag(np.sign(np.arange(384) % 7 - 0.5)).astype(np.float32)
    sample, stored = sample_of(vectors[:2], None), sample_of(np.concatenate([vectors, turned]), None)
    plan = Plan(("guesses",), families=("int8",))
    (attacker.work / "told").mkdir()
    attacker.encode = lambda texts: np.random.default_rng(0).standard_normal((len(texts), 384))
    outcome = run(attacker, sample, stored, plan, None, [], FITS)
    found = report(sample, outcome, plan)
    assert found.as_dict()["defences"]["planted"] is True and not found.is_estimate
    assert "50 invented sentences (an estimate)" in page(found)
    assert any(line.startswith("defences ") and "50 invented sentences (an estimate)" in line for line in lines(found))
    sample = sample_of(vectors[:2], TEXTS[:2])
    told = run(replace(attacker, work=attacker.work / "told"), sample, stored, plan, None, [], FITS)
    assert told.defences.planted is False
    found = report(sample, told, plan)
    assert "2 rows are attacked" in page(found) and "invented" not in "".join(lines(found))


def test_texts_without_content_words_are_said(attacker, vectors):
    """The page sent its reader to notes that said nothing, and two lines of the terminal had a name alone."""
    sample, plan = sample_of(vectors[:2], ["\N{PARTY POPPER}", "..."]), Plan(("vectors",))
    outcome = run(attacker, sample, None, plan, None, [], FITS)
    found = report(sample, outcome, plan)
    assert "None could be measured: see the notes" in page(found)
    assert any("no content words" in note for note in found.warnings)
    assert all(line[12:].strip() for line in lines(found))
    told = run(attacker, sample_of(vectors[2:4], TEXTS[2:4]), None, plan, None, [], FITS)
    assert not any("no content words" in note for note in step_notes(told, plan))


ENGLISH = [
    "Where is my new card today?", "The transfer to Oslo has not arrived.", "I was charged twice for one coffee.",
    "Can I change my address online?", "Please send the invoice again to our office.",
]  # fmt: skip
OTHERS = {
    "French": [
        "Un ami de Marie a réservé un billet.", "On a reçu un courrier de la mairie.", "Il me faut un certificat.",
    ],
    "Italian": [
        "Non ho un conto con la banca a Roma.", "Me lo ha detto con un sorriso.", "La bolletta no, non va pagata.",
    ],
    "Spanish": [
        "Me gusta caminar por la playa con un amigo.", "No puedo abrir la cuenta con un correo.",
        "El banco de la ciudad cobra un interés.",
    ],
    "German": ["Die Katze liegt auf dem Sofa und schläft.", "Das Wetter ist heute so schön, was nun?"],
}  # fmt: skip


@pytest.mark.parametrize("language", ["English", *OTHERS])
def test_texts_of_another_language_are_noted(encoder, language):
    """Scikit-learn's English stop words have de, con, un, a, me and no: Spanish passed for English."""
    texts = (ENGLISH if language == "English" else OTHERS[language]) * 10
    sample = sample_of(np.zeros((len(texts), 3)), texts)
    notes = sample_notes(sample, encoder.tokenizer, 31, ["en"])
    assert any("do not look like English" in note for note in notes) == (language != "English")


def test_rows_without_a_text_are_noted(encoder):
    """A sample of the few rows that hold texts must not pass for one of the store."""
    for texts, count, note in (
        (ENGLISH, 9, "9 of 60 vectors have a text: the sample is of them alone"),
        ([ENGLISH[0], ""], 1, "1 of 2 rows have no text: they count for nothing"),
        (ENGLISH, 60, None),
    ):
        sample = sample_of(np.zeros((len(texts), 3)), texts)._replace(total=60, num_texts=count)
        assert sample_notes(sample, encoder.tokenizer, 31, ["en"]) == [note] * (note is not None)


def test_a_word_head_that_was_not_asked_is_not_missing(attacker, vectors):
    """An audit by known pairs alone said that the checkpoint has no word head."""
    plan = Plan(("vectors",))
    outcome = run(attacker, sample_of(vectors[:2], TEXTS[:2]), None, plan, None, [], FITS)
    assert any("no word head" in note for note in step_notes(outcome, plan))
    asked_nothing = Outcome(FITS, [tier_result(TEXTS, TEXTS)], [], None, None, None)
    assert not step_notes(asked_nothing, Plan(("pairs",)))


def test_an_encoder_that_is_not_at_hand_is_in_the_report(capsys, encoder, store, tmp_path):
    """That an attacker was left out stood on stderr alone, and the report looked complete."""
    torch.manual_seed(0)
    inverter = new_tiny_inverter(encoder.tokenizer, embedding_dim=384, encoder_id="nobody/nothing")
    model = export(inverter, prepare_tokenizer(encoder.tokenizer), tmp_path / "model")
    arguments = (store, "--model", model, "--text-column", "body", "--limit", 2, "--force", "--out", tmp_path / "r")
    code, printed, err = audit(capsys, *arguments)
    assert code == 0, err
    warnings = json.loads((tmp_path / "r" / "report.json").read_text("utf-8"))["warnings"]
    assert any("encoder is not at hand" in note and "nobody/nothing" in note for note in warnings)
    assert "encoder is not at hand" in printed
