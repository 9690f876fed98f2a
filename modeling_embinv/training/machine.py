"""What training chooses by the machine: the floats of matrix products, and how attention is computed.

Bfloat16 where this machine multiplies it fast, float32 elsewhere. Weights, gradients and the optimizer's state are
float32 always, so a run may go on on a machine of the other kind.
"""

import os

import torch

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
