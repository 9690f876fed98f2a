"""The settings of the whole process, which outlive no call."""

import logging

import pytest
import torch
from transformers.utils import logging as transformers_logging

from modeling_embinv.runtime import prepare_process


def settings() -> tuple:
    tiny = torch.full((16,), 1e-39) * 0.5
    level = logging.getLogger("accelerate.utils.other").level
    return tiny.any().item(), level, transformers_logging.is_progress_bar_enabled()


def test_the_process_is_as_before_at_the_end():
    """Hidden state: a program that trains once lost its tiny numbers, its log lines and its bars for good."""
    before = settings()
    assert before[0]
    with prepare_process():
        assert settings() == (True, logging.ERROR, False)
    assert settings() == before
    with pytest.raises(KeyError), prepare_process(training=True):
        assert settings() == (False, logging.ERROR, False)
        raise KeyError
    assert settings() == before


def test_bars_that_were_off_stay_off():
    """Whoever has switched the bars off does not want them back after a call."""
    transformers_logging.disable_progress_bar()
    try:
        with prepare_process():
            pass
        assert not transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.enable_progress_bar()
