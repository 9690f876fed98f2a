"""Keep freed memory in the process on Linux."""

import ctypes
import sys

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
