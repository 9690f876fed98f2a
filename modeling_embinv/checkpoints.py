"""EMA weights, atomic checkpoints named by step, exact resume, and export of a folder that `AutoModel` loads."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from .integrity_embinv import vocabulary_checksum
from .modeling_embinv import EmbInvForMaskedDiffusion

_NAME = re.compile(r"step-(\d{9})")


class EMA:
    """Exponential moving average of trainable weights, in float32: in bf16 an update of 1e-4 would round away."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.live = [weight for weight in model.parameters() if weight.requires_grad]
        self.average = [weight.detach().clone().float() for weight in self.live]

    @torch.no_grad()
    def update(self):
        """Average ← d · average + (1 − d) · weights, d = min(decay, (1 + n)/(10 + n)) after n updates."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.average, [weight.detach().float() for weight in self.live], 1 - decay)
        self.updates += 1

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside the `with` block."""
        kept = [weight.detach().clone() for weight in self.live]
        torch._foreach_copy_(self.live, self.average)
        try:
            yield
        finally:
            torch._foreach_copy_(self.live, kept)

    def state_dict(self) -> dict:
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state: dict):
        self.updates = state["updates"]
        torch._foreach_copy_(self.average, state["average"])


class Progress:
    """Where a run stands: updates done and the best validation loss."""

    def __init__(self):
        self.step, self.best = 0, float("inf")

    def state_dict(self) -> dict:
        return {"step": self.step, "best": self.best}

    def load_state_dict(self, state: dict):
        self.step, self.best = state["step"], state["best"]


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int, keep: int) -> Path:
    """Write `folder/step-N` through a temporary folder, then drop all but the `keep` newest.

    A kill or a full disk on the way leaves the earlier checkpoints as they were.
    """
    target = folder / f"step-{step:09d}"
    partial = folder / f"{target.name}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
        for old in checkpoints(folder)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def load_newest(accelerator: Accelerator, folder: Path) -> Path | None:
    """Load the newest readable checkpoint.

    Raises:
        OSError: naming the checkpoint that cannot be read and what to do.
    """
    for path in reversed(checkpoints(folder)):
        try:
            accelerator.load_state(str(path))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise OSError(
                f"cannot resume from {path}: {reason}. Delete it to continue from the one before, or set resume false."
            ) from error
        return path
    return None


def export(
    model: EmbInvForMaskedDiffusion,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    state_dict: dict[str, Tensor] | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write weights, configs, tokenizer and code as one folder that `AutoModel` loads, replacing an older one at once.

    Weights are stored in `dtype`, half the bytes, and still load and compute in float32 unless asked otherwise.
    """
    state_dict = model.state_dict() if state_dict is None else state_dict
    tied = model._tied_weights_keys
    stored = {name: weight.to(dtype) for name, weight in state_dict.items() if name not in tied}
    partial, old = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model.config.checksums = {"vocabulary": vocabulary_checksum(tokenizer)}
    model.save_pretrained(partial, state_dict=stored)
    tokenizer.save_pretrained(partial)
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder
