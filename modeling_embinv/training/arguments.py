"""Training settings from a YAML file and the command-line flags that override it."""

from dataclasses import MISSING, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..data.flags import CommandParser, add_settings, hyphenated
from ..data.settings import read_yaml
from .config import TrainingConfig

# of each group a run has one: a flag takes the place of what the file has of its group
_ALTERNATIVES = (("pairs", "texts"), ("backbone", "backbone_config", "init_from"))
_SWITCH_WORDS = ("true", "false", "yes", "no", "on", "off", "1", "0")


def parse_training_config(arguments: list[str], prog: str = "train.py", epilog: str | None = None) -> TrainingConfig:
    """`[config.yaml] [--flag value …]` → settings; flags override the file.

    `--pairs` takes the place of the file's `texts`, too, and the other way round; so do `--backbone`,
    `--backbone-config` and `--init-from`. Paths in the YAML's `encoder` are relative to the YAML. prog, epilog: the
    name and the end of the help.

    Raises:
        EmbInvError: for an unknown key or flag, a missing one, or an impossible value.
    """
    usage = f"{prog} [config.yaml] [--flag value ...]"
    parser = CommandParser(prog=prog, usage=usage, description="Train an embedding inverter.", epilog=epilog)
    parser.add_argument("config", nargs="?", help="YAML of the settings below; flags override it")
    add_settings(parser, TrainingConfig)
    _refuse_values(parser, arguments)
    flags = vars(parser.parse_args(arguments))
    path, _ = flags.pop("config"), flags.pop("debug", None)
    values = {} if path is None else read_yaml(path, TrainingConfig)
    if "encoder" in values:
        values["encoder"] = _beside(path, values["encoder"])
    values = _without_replaced(values, flags) | flags
    required = (field.name for field in fields(TrainingConfig) if field.default is field.default_factory is MISSING)
    if missing := [name for name in required if name not in values]:
        parser.error(f"give {' and '.join(missing)}, as a flag or in the YAML")
    return TrainingConfig(**values)


def _without_replaced(values: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """The file's values but for those in whose place a flag gives other data, or another model to start from."""
    replaced = {key for group in _ALTERNATIVES if flags.keys() & set(group) for key in group}
    kept = {key: value for key, value in values.items() if key not in replaced}
    if "init_from" in flags and "init_from" not in values:
        kept.pop("bag_of_words_steps", None)  # the file warms up new weights, and would spoil trained ones
    return kept


def _refuse_values(parser: CommandParser, arguments: list[str]) -> None:
    """Raises EmbInvError for `--resume false` or `--resume=false`: the word would be taken for the YAML's name."""
    switches = {hyphenated(f"--{field.name}") for field in fields(TrainingConfig) if isinstance(field.default, bool)}
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        flag, equals, value = argument.partition("=")
        name = hyphenated(flag).replace("--no-", "--", 1)
        word = value if equals else following
        if name in switches and (equals or (word.lower() in _SWITCH_WORDS and not Path(word).exists())):
            parser.error(f"{flag} takes no value: write {name} or {name.replace('--', '--no-', 1)}, not {word!r}")


def _beside(yaml_path: str, path: str) -> str:
    candidate = Path(yaml_path).parent / path
    return str(candidate) if candidate.is_file() else path
