"""What is wrong with a command line, found before anything heavy is loaded."""

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors_embinv import EmbInvError
from ..presets_embinv import PRESETS, without_surrogate

if TYPE_CHECKING:
    import torch

    from ..stores.vectors import VectorSource

# vectors that are compared with the checkpoint's encoder, and how many of them are needed for a judgement
_PEEK, _FEWEST = 200, 50

_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?(@\S+)?")


def check_model(name: str) -> None:
    """Finds a mistyped folder at once, where the Hub would be asked for it again and again.

    Raises:
        EmbInvError: `name` is empty, neither a folder nor can it be a repository, or the folder of a run.
    """
    if not name.strip():
        raise EmbInvError("--model is empty: give a folder, or the name of a repository (user/name).")
    if not Path(name).exists() and not _REPOSITORY.fullmatch(name):
        raise EmbInvError(
            f"{name[:200]}: no such folder, and not the name of a repository (user/name or user/name@revision)."
        )
    if Path(name).is_dir() and not (Path(name) / "config.json").exists():
        from ..repository import refuse_run  # it loads libraries that take a while

        refuse_run(name)


def stored_config(model: str) -> dict[str, Any]:
    """The config.json of a model's folder, unchecked; {} for a repository, and for what cannot be read."""
    try:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # `load_model` says what is wrong
    return config if isinstance(config, dict) else {}


def check_preset_flag(options: argparse.Namespace) -> None:
    """A preset that the model's folder cannot serve.

    Raises:
        EmbInvError: `--preset` needs a surrogate, the folder's model has none, and `--feedback` names no other judge.
    """
    config = stored_config(options.model)
    needs = options.preset is not None and PRESETS[options.preset].feedback == "surrogate"
    if needs and options.feedback is None and config and not config.get("surrogate_rank"):
        raise EmbInvError(without_surrogate(options.preset))


def check_rows(options: argparse.Namespace) -> None:
    """Two ways of taking a part of the rows.

    Raises:
        EmbInvError: both `--limit` and `--sample`.
    """
    if options.limit is not None and options.sample is not None:
        raise EmbInvError("give --limit or --sample, not both.")


def check_feedback_flag(options: argparse.Namespace) -> None:
    """Corrections that nothing checks.

    Raises:
        EmbInvError: `--num-corrections`, or a preset that has some, without `--feedback`.
    """
    preset = PRESETS[options.preset or "quick"]
    judge = preset.feedback if options.feedback is None else options.feedback
    corrections = options.num_corrections
    if corrections is None:
        corrections = preset.settings["num_corrections"]
    if corrections and judge in (None, "none"):
        name = "--num-corrections" if options.num_corrections else f"--preset {options.preset}"
        raise EmbInvError(f"{name} needs --feedback surrogate (or encoder).")


def check_encoder(options: argparse.Namespace, source: "VectorSource") -> None:
    """Finds vectors of another encoder, random or rotated ones, before the weights are loaded.

    Fewer than 50 vectors say too little, and pass; with `--force` all do.

    Args:
        options: with `model` and `force`.
        source: the vectors, of which the first ones decide, whichever are selected.

    Raises:
        EmbInvError: they do not look like those of the checkpoint's encoder.
        OSError: when there is no such checkpoint, or a damaged configuration.
    """
    if options.force:
        return
    from ..audit.fingerprint import origin
    from ..repository import load_config

    first = next((batch.vectors for batch in source.all_batches(_PEEK) if len(batch.rows) >= _FEWEST), None)
    if first is None:
        return
    found = origin(options.model, load_config(options.model), first)
    if found.looks_like is not None:
        raise EmbInvError(f"{found}: name the right checkpoint with --model, or go on with --force.")


def check_pairs_folder(taker: str, path: str) -> None:
    """Finds what is no folder of prepared pairs, before the model is loaded.

    Args:
        taker: the flag or command that takes such folders.

    Raises:
        EmbInvError: there is no such folder, or it is a file.
    """
    if Path(path).is_file():
        raise EmbInvError(f"{path} is a file: {taker} takes folders of `embinv prepare`.")
    if not Path(path).is_dir():
        raise EmbInvError(f"{path}: no such folder; make it with `embinv prepare`.")


def check_device(name: str) -> "torch.device":
    """The torch device of that name.

    Raises:
        EmbInvError: torch knows no such device, or this machine has none.
    """
    import torch

    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        present = ["cpu"]
        if torch.accelerator.is_available():
            present.append(str(torch.accelerator.current_accelerator()))
        raise EmbInvError(f"--device {name[:40]} is not on this machine; it has {', '.join(present)}.") from error
    return device


def check_seed(seed: int) -> None:
    """Finds a seed that generators of random numbers do not take.

    Raises:
        EmbInvError: it is negative or too large.
    """
    if not 0 <= seed < 2**63:
        raise EmbInvError(f"--seed must be from 0 to 2^63 - 1, got {str(seed)[:30]}.")


def check_writable(flag: str, path: str | None) -> None:
    """Finds an output that cannot be written before hours of work, not after them.

    Raises:
        EmbInvError: the file of `flag` would lie in no folder, or in one that this user cannot write to.
    """
    if path is None:
        return
    folder = Path(path).absolute().parent
    if not folder.is_dir() or Path(path).is_dir() or not os.access(folder, os.W_OK):
        raise EmbInvError(
            f"{flag} {path}: this file cannot be written; give one in a folder that exists and is yours."
        )


def check_apart(flag: str, path: str | None, given: Sequence[str]) -> None:
    """Finds an output that would replace what is read.

    Raises:
        EmbInvError: the file of `flag` is one of those that were given.
    """
    from ..data.files import is_same_file

    if path is not None and any(is_same_file(Path(path), Path(one)) for one in given):
        raise EmbInvError(f"{flag} {path} would replace what is read; give another file.")


def check_folder(flag: str, path: str | None) -> None:
    """Finds a folder that can be neither made nor written to before hours of work, not after them.

    Raises:
        EmbInvError: a file is in its place or above it, or this user cannot write there.
    """
    if path is None:
        return
    place = Path(path).absolute()
    present = next(folder for folder in (place, *place.parents) if os.path.lexists(folder))
    if not present.is_dir() or not os.access(present, os.W_OK):
        raise EmbInvError(f"{flag} {path}: nothing can be written there; give a folder that is yours, or a new one.")
