"""Training settings from a YAML file and the command-line flags that override it."""

from dataclasses import MISSING, fields
from pathlib import Path

from ..data.flags import CommandParser, add_settings
from ..data.settings import read_yaml
from .config import TrainingConfig


def parse_training_config(arguments: list[str], prog: str = "train.py", epilog: str | None = None) -> TrainingConfig:
    """`[config.yaml] [--flag value …]` → settings; flags override the file.

    Paths in the YAML's `encoder` are relative to the YAML. prog, epilog: the name and the end of the help.

    Raises:
        EmbInvError: for an unknown key or flag, a missing one, or an impossible value.
    """
    usage = f"{prog} [config.yaml] [--flag value ...]"
    parser = CommandParser(prog=prog, usage=usage, description="Train an embedding inverter.", epilog=epilog)
    parser.add_argument("config", nargs="?", help="YAML of the settings below; flags override it")
    add_settings(parser, TrainingConfig)
    flags = vars(parser.parse_args(arguments))
    path, _ = flags.pop("config"), flags.pop("debug", None)
    values = {} if path is None else read_yaml(path, TrainingConfig)
    if "encoder" in values:
        values["encoder"] = _beside(path, values["encoder"])
    values |= flags
    required = (field.name for field in fields(TrainingConfig) if field.default is field.default_factory is MISSING)
    if missing := [name for name in required if name not in values]:
        parser.error(f"give {' and '.join(missing)}, as a flag or in the YAML")
    return TrainingConfig(**values)


def _beside(yaml_path: str, path: str) -> str:
    candidate = Path(yaml_path).parent / path
    return str(candidate) if candidate.is_file() else path
