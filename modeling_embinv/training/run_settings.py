"""The settings of a run, kept in its folder: what it was begun with, and what is other when it goes on."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..data.files import write_text
from ..data.settings import load_yaml
from ..errors_embinv import EmbInvError, shown
from .config import TrainingConfig

SETTINGS = "settings.yaml"
# of these a finished run has nothing more to learn: other ones are another run
_SOURCES = ("pairs", "texts", "init_from")
# these say how a command is given, and nothing of what the run learns
_LEFT_OUT = ("output_dir", "resume")


def settings_of(config: TrainingConfig) -> dict[str, Any]:
    """The settings as values of YAML, those that are null left out."""
    return {key: value for key, value in dataclasses.asdict(config).items() if value is not None}


def read_settings(folder: Path) -> dict[str, Any]:
    """What an earlier start has kept; {} where there is no such file, as in a folder of an older version."""
    try:
        kept = load_yaml(folder / SETTINGS)
    except EmbInvError:  # a damaged note ends no run
        return {}
    return kept if isinstance(kept, dict) else {}


def write_settings(folder: Path, config: TrainingConfig) -> None:
    """Keep the settings in the folder as a recipe that `train.py` takes; an older file is replaced in one move."""
    note = "# The settings of this run, as train.py has noted them.\n"
    write_text(folder / SETTINGS, note + yaml.safe_dump(settings_of(config), sort_keys=False, allow_unicode=True))


def changes(before: Mapping[str, Any], config: TrainingConfig) -> dict[str, str]:
    """Each setting whose value is another one than before, and both values in words; none where nothing was kept.

    What an older version has not kept had the default.
    """
    found = {}
    for field in dataclasses.fields(config) if before else []:
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        old, new = before.get(field.name, default), getattr(config, field.name)
        if field.name not in _LEFT_OUT and not _are_same(old, new):
            found[field.name] = f"{field.name} was {_in_words(old)}, now {_in_words(new)}"
    return found


def refuse_other_sources(folder: Path, step: int, changed: Mapping[str, str]) -> None:
    """Raises EmbInvError where a finished run is given other data, or another model to start from."""
    if others := [changed[name] for name in _SOURCES if name in changed]:
        raise EmbInvError(
            f"the run in {folder} is finished at step {step}, and this is another one: {'; '.join(others)}. Set "
            "another output_dir, or raise max_steps to go on with these."
        )


def _in_words(value: Any) -> str:
    """Paths whole: two long ones may differ in the middle."""
    return value if isinstance(value, str) else " ".join(map(str, value)) if isinstance(value, list) else shown(value)


def _are_same(left: Any, right: Any) -> bool:
    """Whether two values are equal; a path may be written in several ways."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_are_same, left, right))
    if isinstance(left, str) and isinstance(right, str):
        return left == right or (Path(left).exists() and Path(left).resolve() == Path(right).resolve())
    return bool(left == right)
