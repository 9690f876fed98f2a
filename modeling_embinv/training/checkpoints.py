"""EMA weights, atomic checkpoints named by step, exact resume, and export of a folder that `AutoModel` loads."""

import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..data.encoder_config import same_setting
from ..data.files import one_line
from ..data.folders import make_empty, partial_of, publish, remove, remove_leftovers, written_whole
from ..errors_embinv import EmbInvError, shown
from ..integrity_embinv import vocabulary_checksum
from ..modeling_embinv import EmbInvForMaskedDiffusion

_NAME = re.compile(r"step-(\d{9})")


class EMA:
    """Exponential moving average of trainable weights, in float32: in bf16 an update of 1e-4 would round away."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.live: list[Tensor] = [weight for weight in model.parameters() if weight.requires_grad]
        self.average = [weight.detach().clone().float() for weight in self.live]

    @torch.no_grad()
    def update(self) -> None:
        """Average ← d · average + (1 − d) · weights, d = min(decay, (1 + n)/(10 + n)) after n updates."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.average, [weight.detach().float() for weight in self.live], 1 - decay)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside the `with` block."""
        live = [weight.detach() for weight in self.live]  # the same memory, which no gradient forbids to write
        kept = [weight.clone() for weight in live]
        torch._foreach_copy_(live, self.average)
        try:
            yield
        finally:
            torch._foreach_copy_(live, kept)

    def state_dict(self) -> dict[str, Any]:
        """For accelerate, which saves it with a checkpoint."""
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, in place."""
        self.updates = state["updates"]
        torch._foreach_copy_(self.average, state["average"])


class Progress:
    """Where a run stands: updates done, the best validation loss, and whether a validation is due before all else.

    Args:
        measured: a digest of what the run's validation losses are measured on.
        encoder: the settings that make the run's vectors what they are, as `encoder_settings` gives them.
    """

    def __init__(self, measured: str, encoder: dict[str, str | None]) -> None:
        self.step, self.best, self.is_validation_due = 0, float("inf"), False
        self.measured, self.encoder = measured, encoder
        self._loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """For accelerate, which saves it with a checkpoint."""
        names = ("step", "best", "is_validation_due", "measured", "encoder")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, but for what is this run's own; `check` compares that."""
        self.step, self.best, self._loaded = state["step"], state["best"], state
        self.is_validation_due = state.get("is_validation_due", False)  # an older version saved after a validation

    def check(self, checkpoint: Path) -> bool:
        """Whether the best loss of the loaded checkpoint counts; an older version noted nothing to tell by.

        Raises:
            EmbInvError: for a checkpoint that learned the vectors of another encoder.
        """
        before = self._loaded.get("encoder") or {}
        for name, value in self.encoder.items():
            has_moved = name == "encoder_id" and Path(str(value)).is_dir()  # the name of a folder tells nothing
            if name in before and not has_moved and not same_setting(name, before[name], value):
                raise EmbInvError(
                    f"{checkpoint} was trained with {name} {shown(before[name])}, this run has {shown(value)}, and "
                    "other vectors. Set another output_dir, or start over with --no-resume."
                )
        return self._loaded.get("measured", self.measured) == self.measured


def save_checkpoint(
    accelerator: Accelerator, folder: Path, step: int, keep: int, replaced: Sequence[Path] = ()
) -> Path:
    """Write `folder/step-N` through a temporary folder, then drop all but the `keep` newest up to N.

    Checkpoints of later steps are those of a run that was started over; they go, too.

    Args:
        replaced: checkpoints of such a run, whatever their steps.

    Raises:
        OSError: in every process, in one line, when it cannot be written; the earlier checkpoints are as they were.
    """
    target = folder / f"step-{step:09d}"
    partial, is_main = partial_of(target), accelerator.is_main_process

    def publish_and_prune() -> None:
        publish(partial, target)
        lying = [path for path in checkpoints(folder) if path != target]
        later = [path for path in lying if step_of(path) > step or path in replaced]
        before = [path for path in lying if path not in later]
        for old in [*reversed(later), *before[: max(0, len(before) + 1 - keep)]]:
            remove(old)

    try:
        in_all(accelerator, lambda: make_empty(partial) if is_main else None)
        in_all(accelerator, lambda: accelerator.save_state(str(partial)))
        in_all(accelerator, lambda: publish_and_prune() if is_main else None)
    except OSError as error:
        if is_main:
            shutil.rmtree(partial, ignore_errors=True)  # room for others; what stays goes at the next start
        raise OSError(
            f"cannot save {target}: {error}. Checkpoints before it are as they were; start again."
        ) from error
    return target


def in_all(accelerator: Accelerator, work: Callable[[], object]) -> None:
    """Do `work` in every process and wait for all.

    Raises:
        OSError: in every process, when it fails in one: nobody waits for a process that is gone.
    """
    problem = None
    try:
        work()
    except Exception as error:  # a full disk is an error of its own kind in safetensors and PyTorch
        problem = one_line(error)
    problems = [text for text in gather_object([problem]) if text is not None]
    if problems:
        raise OSError(problems[0])


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def step_of(checkpoint: Path) -> int:
    """Updates that were done when the checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))


def remove_unfinished(folder: Path) -> None:
    """Remove what a kill has left of checkpoints and exports on their way in or out."""
    remove_leftovers(folder, rf"{_NAME.pattern}|best|last")


def load_newest(accelerator: Accelerator, folder: Path, model: nn.Module) -> Path | None:
    """Load the newest checkpoint into `model` and all else that the accelerator has prepared.

    Raises:
        EmbInvError: in every process, where it changed weights that do not train: it is of another model.
        OSError: naming the checkpoint that cannot be read and what to do.
    """
    path = next(reversed(checkpoints(folder)), None)
    if path is None:
        return None
    before = [weight.clone() for weight in _frozen(model)]
    try:
        accelerator.load_state(str(path))
    except Exception as error:
        raise OSError(
            f"cannot resume from {path}: {one_line(error)}. If it is of a run with other settings, choose another "
            "output_dir; if it is damaged, delete it to continue from the one before."
        ) from error
    pairs = zip(before, _frozen(model), strict=True)
    changed = torch.tensor(not all(torch.equal(*pair) for pair in pairs), device=accelerator.device)
    if accelerator.reduce(changed.float(), reduction="sum"):
        raise EmbInvError(
            f"{path} has other frozen weights than this run starts from: it is of another init_from or backbone. "
            "Set another output_dir, or start over with --no-resume."
        )
    return path


def _frozen(model: nn.Module) -> list[Tensor]:
    """What this process holds of the weights that do not train."""
    frozen = [weight.detach() for weight in model.parameters() if not weight.requires_grad]
    return [weight.to_local() if hasattr(weight, "to_local") else weight for weight in frozen]


def export(
    model: EmbInvForMaskedDiffusion,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    state_dict: dict[str, Tensor] | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write weights, configs, tokenizer and code as one folder that `AutoModel` loads, replacing an older one at once.

    Weights are stored in `dtype`, half the bytes, and still load and compute in float32 unless asked otherwise.

    Raises:
        EmbInvError: naming a weight that is not finite in `dtype`.
        OSError: when the folder cannot be written; an older one stays as it was.
    """
    state_dict = model.state_dict() if state_dict is None else state_dict
    tied = model._tied_weights_keys
    stored = {name: weight.to(dtype) for name, weight in state_dict.items() if name not in tied}
    if bad := next((name for name, weight in stored.items() if not weight.isfinite().all()), None):
        raise EmbInvError(f"{folder} is not written: {bad} is not finite in {dtype}, so training has diverged.")
    model.config.checksums = {"vocabulary": vocabulary_checksum(tokenizer)}
    with written_whole(folder) as partial:
        model.save_pretrained(partial, state_dict=stored)
        tokenizer.save_pretrained(partial)
    return folder


def is_exported(folder: Path, state_dict: dict[str, Tensor], derived: Collection[str] = ()) -> bool:
    """Whether the folder of an earlier `export` holds these weights, as far as it stores them.

    Args:
        derived: names of weights that follow from the others; another machine may round them otherwise.
    """
    file = folder / "model.safetensors"
    stored = load_file(file) if file.is_file() else {}
    return bool(stored) and all(
        name in state_dict and (name in derived or torch.equal(weight, state_dict[name].to(weight)))
        for name, weight in stored.items()
    )
