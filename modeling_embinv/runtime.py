"""The process: its random numbers, its memory, its companions."""

import ctypes
import sys

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_large_blocks():
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


def generator_for(*key: int) -> torch.Generator:
    """A CPU generator that depends on the whole key."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed)


def process_state() -> PartialState:
    """The processes that `accelerate launch` or torchrun started; its `device` is this one's.

    Without `cpu`, accelerate takes each of several processes on CPUs for a run of its own.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
