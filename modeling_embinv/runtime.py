"""The process: its random numbers, its memory, its settings, its companions."""

import ctypes
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

if TYPE_CHECKING:  # noise and seeds are of use where accelerate is not
    from accelerate import PartialState

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_large_blocks() -> None:
    """Tell glibc to reuse large blocks instead of returning them to the kernel.

    A training step on a CPU allocates and frees hundreds of megabytes; by default each of those blocks is mapped
    anew, and faulting its pages in costs more than the arithmetic on them. Does nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 256 * 2**20)


@contextmanager
def prepare_process(training: bool = False) -> Iterator[None]:
    """The settings of the whole process that this package wants; at the end of the `with` block they are as before.

    The allocator alone stays as `keep_large_blocks` sets it: glibc does not tell how it was.

    Args:
        training: whether numbers below 1e-38 count as zero; a sharp softmax is full of them, and a CPU's
            multiplications on them take many times as long.
    """
    keep_large_blocks()
    # tied weights are saved once, which accelerate would report at every checkpoint
    log, shows_bars = logging.getLogger("accelerate.utils.other"), transformers_logging.is_progress_bar_enabled()
    level = log.level
    log.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()  # "Loading weights" says nothing of use
    if training:
        torch.set_flush_denormal(True)
    try:
        yield
    finally:
        log.setLevel(level)
        if shows_bars:
            transformers_logging.enable_progress_bar()
        if training:
            torch.set_flush_denormal(False)


def generator_for(*key: int) -> torch.Generator:
    """A CPU generator that depends on the whole key."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed)


def computes_on_cpu() -> bool:
    """Whether this process has no accelerator, or was launched to leave it alone."""
    from accelerate.utils import parse_flag_from_env

    return bool(parse_flag_from_env("ACCELERATE_USE_CPU")) or not torch.accelerator.is_available()


def process_state() -> "PartialState":
    """The processes that `accelerate launch` or torchrun started; its `device` is this one's.

    Without `cpu`, accelerate takes each of several processes on CPUs for a run of its own.
    """
    from accelerate import PartialState

    return PartialState(cpu=computes_on_cpu())
