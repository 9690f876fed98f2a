"""Shares that a checkpoint expects to be right, which say little where nobody calibrated it."""

from dataclasses import replace

import pytest

from modeling_embinv.audit.attack import ENCODER
from modeling_embinv.audit.public import public_sentences
from modeling_embinv.audit.subject import run_subject_tier
from modeling_embinv.audit.tiers import run_tier
from modeling_embinv.settings_embinv import SearchSettings
from tests.audit.conftest import TEXTS, sample_of

pytestmark = pytest.mark.usefixtures("remembering")


def test_only_a_calibrated_checkpoint_expects(attacker, vectors):
    """The raw confidence of a checkpoint that nobody calibrated stood in the report as a calibrated one."""
    sample, config = sample_of(TEXTS[:2])._replace(vectors=vectors[:2]), attacker.model.generation_config
    alone = run_tier(attacker, sample, attacker.vectors_tier, None).expected
    assert alone is not None and alone.count == 2
    # the search with the encoder has a calibration of its own, which this checkpoint lacks
    assert run_tier(attacker, sample, ENCODER, None).expected is None
    config.calibration = {"encoder": {"bias": 0.5}}
    assert run_tier(attacker, sample, ENCODER, None).expected is not None
    assert run_tier(attacker, sample, attacker.vectors_tier, None).expected is None
    config.calibration, config.search = {"candidates": {"bias": 0.5}}, SearchSettings(num_candidates=2)
    assert attacker.is_calibrated(attacker.vectors_tier)


def test_a_fine_tuned_checkpoint_expects_nothing(attacker, vectors):
    """Resumed, the audit has the calibrated checkpoint in place of the one that was fine-tuned, and gave its share."""
    attacker.model.generation_config.calibration = {"encoder": {"bias": 0.5}}
    sample = sample_of(TEXTS[:2])._replace(vectors=vectors[:2])
    trainer = replace(attacker, retrain=lambda *_: attacker.model)
    first, again = (run_subject_tier(trainer, sample, public_sentences()[:20], 2, 2, None) for _ in range(2))
    assert first.expected is again.expected is None and first.recovered.texts == again.recovered.texts
