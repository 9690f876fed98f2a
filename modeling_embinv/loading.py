"""Load a trained inverter and its tokenizer from a folder or the Hub."""

from pathlib import Path
from typing import Any

from huggingface_hub import is_offline_mode, model_info, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from .configuration_embinv import EmbInvConfig
from .errors_embinv import EmbInvError
from .integrity_embinv import check_tokenizer
from .modeling_embinv import EmbInvForMaskedDiffusion

# without this, loading a checkpoint's tokenizer would ask whether to run the code that is already imported
AutoConfig.register("embinv", EmbInvConfig, exist_ok=True)
AutoModel.register(EmbInvConfig, EmbInvForMaskedDiffusion, exist_ok=True)


def load_inverter(name: str | Path, **kwargs: Any) -> tuple[EmbInvForMaskedDiffusion, PreTrainedTokenizerBase]:
    """A trained inverter and its tokenizer from a folder or a Hub repository.

    Args:
        name: folder, `user/name`, or `user/name@revision` with a branch, tag or commit.
        kwargs: of the model's `from_pretrained`.

    Raises:
        OSError: with one line that says what is wrong with the folder or the repository.
    """
    is_folder = Path(name).exists()
    path, _, revision = (str(name), "", "") if is_folder else str(name).partition("@")
    pinned: dict[str, Any] = {"revision": revision} if revision else {}
    if not is_folder and not kwargs:
        _check_repository(path, revision or None)
    try:
        model = EmbInvForMaskedDiffusion.from_pretrained(path, use_safetensors=True, **pinned, **kwargs)
        return model, _load_tokenizer(path, model, **pinned)
    except Exception as error:
        if is_folder:
            wrong = "is not a readable inverter (config.json, model.safetensors, tokenizer.json)"
        else:
            wrong = "is not a folder here, and cannot be loaded from the Hub or its cache"
        raise OSError(f"{name} {wrong}: {' '.join(str(error).split())}") from error


def _check_repository(name: str, revision: str | None) -> None:
    """Asks the Hub once for a repository that is not in its cache: the library would ask five times, with pauses.

    Raises:
        OSError: there is none, or the Hub cannot be reached.
    """
    if is_offline_mode() or isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        return
    try:
        model_info(name, revision=revision, timeout=10)
    except RepositoryNotFoundError as error:
        raise OSError(f"{name} is not a folder here, nor a repository on the Hub that this user can read") from error
    except HfHubHTTPError:
        return  # loading says what it is
    except Exception as error:  # of the library that huggingface_hub calls the Hub with, which differs by version
        reason = " ".join(str(error).split())
        raise OSError(f"{name} is not a folder here, and the Hub cannot be reached: {reason}") from error


def _load_tokenizer(path: str, model: EmbInvForMaskedDiffusion, **pinned: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, checked against the model.

    Raises:
        EmbInvError: when there is none, or another one.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **pinned)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise EmbInvError(f"the tokenizer (tokenizer.json) is missing or damaged: {reason}") from error
    check_tokenizer(model.config, tokenizer)
    return tokenizer
