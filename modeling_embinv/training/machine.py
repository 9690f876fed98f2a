"""What training chooses by the machine: its processes, the floats of matrix products, how attention is computed.

Bfloat16 where this machine multiplies it fast, float32 elsewhere. Weights, gradients and the optimizer's state are
float32 always, so a run may go on on a machine of the other kind.
"""

import os

import torch
from accelerate.logging import get_logger

from ..errors_embinv import EmbInvError
from ..runtime import computes_on_cpu
from .config import Precision


def precision_of(wanted: Precision) -> str:
    """A setting as accelerate's word: "no", "bf16", or what the launch says.

    Args:
        wanted: "auto" leaves it to the launch file or its flag, and to the machine where these say nothing. Accelerate
            writes "no" into the environment both then and where they say "no".
    """
    if wanted != "auto":
        return {"float32": "no"}.get(wanted, wanted)
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if launched != "no":
        return launched
    return "bf16" if has_fast_bf16() else "no"


def dtype_of(precision: str) -> torch.dtype:
    """The floats of matrix products under accelerate's word: float32 for "no"."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)


def has_fast_bf16() -> bool:
    """Whether the device of this process has units for bfloat16; a processor without them is faster in float32."""
    if computes_on_cpu():
        found = torch.cpu.get_capabilities()
        return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def attention_of(wanted: str) -> str:
    """A setting as transformers' word; "auto" is what is faster for short texts on the device of this process.

    On a CPU the fused attention takes more than a quarter of a training step at 16 to 32 tokens, most of it backwards.
    """
    if wanted != "auto":
        return wanted
    return "eager" if computes_on_cpu() else "sdpa"


def check_processes(found: int) -> None:
    """Compares the processes that accelerate has `found` with those that were asked for.

    `accelerate launch` starts one on a CPU, whatever its --num_processes says: a line says so.

    Raises:
        EmbInvError: for several processes of which each takes itself for the only one.
    """
    if found > 1:
        return
    started = os.environ.get("WORLD_SIZE", "1")
    if started not in ("", "1"):
        raise EmbInvError(
            f"WORLD_SIZE says {started} processes, and this one knows of none but itself: start them with torchrun; "
            "with ACCELERATE_USE_CPU=true before it they compute on CPUs."
        )
    if os.environ.get("MASTER_PORT") and os.environ.get("ACCELERATE_USE_CPU"):  # written for several processes alone
        get_logger(__name__).warning(
            "this run has one process: `accelerate launch` starts one process on a CPU, whatever --num_processes "
            "says. For two, start `torchrun --standalone --nproc_per_node 2 train.py` with the same settings."
        )
