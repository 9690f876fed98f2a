"""The attacker who has texts on the store's subject."""

import json
from dataclasses import replace

import pytest
import torch

from modeling_embinv.audit.attack import ENCODER
from modeling_embinv.audit.fingerprint import Origin
from modeling_embinv.audit.notes import step_notes
from modeling_embinv.audit.public import public_sentences
from modeling_embinv.audit.run import Plan
from modeling_embinv.audit.run import run as run_steps
from modeling_embinv.audit.subject import learnable, run_subject_tier
from modeling_embinv.audit.tiers import beside_known, run_tier
from modeling_embinv.data.tokens import tokenize
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.loading import load_inverter
from tests.audit.conftest import TEXTS, run, sample_of, tier_result
from tests.tiny_models import awaken

pytestmark = pytest.mark.usefixtures("remembering")


def short_sentences(tokenizer, count: int) -> list[str]:
    """Public sentences that the tiny checkpoint, of at most 11 tokens, can write."""
    sizes = map(len, tokenize(tokenizer, list(public_sentences())))
    return [text for text, size in zip(public_sentences(), sizes, strict=True) if size <= 11][:count]


def test_texts_of_the_store_and_longer_ones_are_not_learned(attacker):
    """A text that is attacked was learned before, or training failed, an hour later, as all texts are too long."""
    short, attacked = short_sentences(attacker.tokenizer, 30), sample_of(TEXTS)
    long = " ".join(short[:4])
    assert learnable(attacker, attacked, [*short, long, "", TEXTS[0].upper()]) == short
    assert learnable(attacker, attacked._replace(texts=None), [*short, TEXTS[0]]) == [*short, TEXTS[0]]
    with pytest.raises(EmbInvError, match="--train-texts: 19 of 27 texts .* at most 11 tokens .* at least 20"):
        learnable(attacker, attacked, [*short[:19], *TEXTS])


def test_the_fine_tuned_checkpoint_attacks(attacker, vectors):
    """The attack of the checkpoint as it was stood in the report as that of the fine-tuned one."""
    sample = sample_of(TEXTS)._replace(vectors=vectors)
    other = awaken(load_inverter(attacker.model.config._name_or_path)[0], seed=1).eval()
    given = {}

    def retrain(texts, known, folder, steps):
        given.update(texts=texts, steps=steps, near=float((known[0] * attacker.encode(texts[:1]).numpy()).sum()))
        return other

    texts = short_sentences(attacker.tokenizer, 25)
    result = run_subject_tier(replace(attacker, retrain=retrain), sample, texts, 7, 2, None)
    assert given["texts"] == texts and given["steps"] == 7 and given["near"] > 0.999
    tier = replace(ENCODER, limit=2)
    mine, theirs = (
        run_tier(replace(attacker, model=model), sample, tier, None, name).recovered.texts
        for name, model in (("mine", attacker.model), ("theirs", other))
    )
    assert result.recovered.texts == theirs != mine
    assert result.expected is None, "a fine-tuned checkpoint has no calibration"
    assert len(result.sample.rows) == 2 and "25 texts" in result.tier.holds and result.nearest is not None


def test_the_nearest_known_text_stands_beside_the_figures():
    """Texts that were learned by heart looked like recovered ones."""
    result = tier_result(["red house", "blue car"], ["red house", "blue car"])
    known = torch.nn.functional.normalize(torch.from_numpy(result.sample.vectors), dim=-1).numpy()[::-1]
    found = beside_known(result, ["blue bus", "old house"], known, 0).nearest
    assert found is not None and (found.hits, found.count) == (2, 4)
    bare = replace(result, sample=result.sample._replace(texts=None))
    assert beside_known(bare, ["blue bus", "old house"], known, 0).nearest is None


def test_what_cannot_be_scored_is_said(attacker, vectors):
    """Minutes of training for a store without texts, and the report did not mention the attacker."""
    texts = short_sentences(attacker.tokenizer, 25)
    plan = Plan(("vectors", "subject"), train_texts=texts)
    trained = replace(attacker, retrain=lambda *_: attacker.model)
    bare = sample_of(TEXTS[:2])._replace(vectors=vectors[:2], texts=None)
    outcome = run_steps(trained, bare, None, plan, None, [], Origin("model", "a/b", "random numbers"))
    assert [result.tier.name for result in outcome.tiers] == ["vectors", "subject"]
    assert any(note.startswith("what subject recovered stands in hits.jsonl") for note in step_notes(outcome, plan))


def test_an_audit_with_texts_on_the_subject(capsys, model, attacker, store, tmp_path):
    """A report without the attacker that --train-texts asks for, or a first attack that too few of them waste.

    The log of the training showed texts, and what came back of them, without --reveal. It named a folder as saved that
    is removed after the attack.
    """
    texts, short = tmp_path / "texts.txt", short_sentences(attacker.tokenizer, 40)
    arguments = (
        store, "--model", model, "--text-column", "body", "--limit", 3, "--encoder-limit", 2, "--no-encoder",
        "--train-texts", texts, "--out", tmp_path / "r",
    )  # fmt: skip
    texts.write_text("\n".join(TEXTS * 3 + short[:15]), encoding="utf-8")
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "at least 20 are needed" in err.splitlines()[-1] and "inverting" not in err
    texts.write_text("\n".join(short + TEXTS), encoding="utf-8")
    code, printed, err = run(capsys, *arguments, "--train-steps", 2)
    assert code == 0, err
    assert "fine-tuning the checkpoint on 44 texts (subject)" in err and "dropped" not in err and "saved" not in err
    assert not any(text.rstrip(".").lower() in err.lower() for text in short)
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    first, subject = report["tiers"]
    assert (first["name"], first["nearest_known_text"]) == ("vectors", None)
    assert subject["name"] == "subject" and subject["rows"] == 2 and subject["expected_token_accuracy"] is None
    assert subject["nearest_known_text"]["count"] == subject["figures"]["words"]["count"]
    (line,) = [line for line in printed.splitlines() if line.startswith("subject ")]
    assert "on these rows vectors" in line and "the nearest known text" in line
    page = " ".join((tmp_path / "r" / "index.html").read_text(encoding="utf-8").split())
    assert "the nearest of the texts that this attacker knows holds" in page
    code, printed, err = run(capsys, *arguments, "--train-steps", 0)
    assert code == 0 and "subject" not in printed, err
