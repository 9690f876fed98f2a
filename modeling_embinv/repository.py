"""A folder or a Hub repository of an inverter: where it lies, and its configuration, without the network's code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import is_offline_mode, model_info, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from .configuration_embinv import EmbInvConfig
from .errors_embinv import EmbInvError


def load_config(name: str | Path) -> EmbInvConfig:
    """The configuration of an inverter; see `load_inverter`.

    Raises:
        EmbInvError: for the folder of a run.
        OSError: with one line that says what is wrong with the folder or the repository.
    """
    path, pinned = located(name)
    with one_line(name):
        config: EmbInvConfig = EmbInvConfig.from_pretrained(path, **pinned)
        return config


def located(name: str | Path, asks_hub: bool = True) -> tuple[str, dict[str, Any]]:
    """The folder or repository of a name, and the library's argument for its revision, where it names one.

    Raises:
        EmbInvError: for the folder of a run.
        OSError: it is no folder, and the Hub, if it is asked, does not have it.
    """
    refuse_run(name)
    if Path(name).exists():
        return str(name), {}
    path, _, revision = str(name).partition("@")
    if asks_hub:
        _check_repository(path, revision or None)
    return path, {"revision": revision} if revision else {}


def refuse_run(name: str | Path) -> None:
    """Raises EmbInvError for the folder of a training run, which holds inverters and is none."""
    folder = Path(name)
    inside = [str(folder / part) for part in ("best", "last") if (folder / part / "config.json").is_file()]
    if inside and not (folder / "config.json").exists():
        raise EmbInvError(f"{name} is the folder of a run: give {' or '.join(inside)}.")


@contextmanager
def one_line(name: str | Path) -> Iterator[None]:
    """Turns whatever goes wrong with an inverter's files into an OSError of one line."""
    try:
        yield
    except Exception as error:
        if Path(name).exists():
            wrong = "is not a readable inverter (config.json, model.safetensors, tokenizer.json)"
        else:
            wrong = "is not a folder here, and cannot be loaded from the Hub or its cache"
        raise OSError(f"{name} {wrong}: {' '.join(str(error).split())}") from error


def _check_repository(name: str, revision: str | None) -> None:
    """Asks the Hub once for a repository that is not in its cache: the library would ask five times, with pauses.

    Raises:
        OSError: there is none, none can have that name, or the Hub cannot be reached.
    """
    if is_offline_mode():
        return
    try:
        if not isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            model_info(name, revision=revision, timeout=10)
    except HFValidationError as error:
        raise OSError(f"{name} is not a folder here, nor can a repository have that name (user/name)") from error
    except RepositoryNotFoundError as error:
        raise OSError(f"{name} is not a folder here, nor a repository on the Hub that this user can read") from error
    except HfHubHTTPError:
        return  # loading says what it is
    except Exception as error:  # of the library that huggingface_hub calls the Hub with, which differs by version
        reason = " ".join(str(error).split())
        raise OSError(f"{name} is not a folder here, and the Hub cannot be reached: {reason}") from error
