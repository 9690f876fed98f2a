"""Load a trained inverter and its tokenizer from a folder or the Hub."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from .configuration_embinv import EmbInvConfig
from .errors_embinv import EmbInvError
from .integrity_embinv import HUB, check_tokenizer
from .modeling_embinv import EmbInvForMaskedDiffusion
from .repository import located, one_line

# arguments of the model's loading that hold for its tokenizer
_PLACE = (*HUB, "force_download", "local_files_only")
# without this, loading a checkpoint's tokenizer would ask whether to run the code that is already imported
AutoConfig.register("embinv", EmbInvConfig, exist_ok=True)
AutoModel.register(EmbInvConfig, EmbInvForMaskedDiffusion, exist_ok=True)


def load_inverter(name: str | Path, **kwargs: Any) -> tuple[EmbInvForMaskedDiffusion, PreTrainedTokenizerBase]:
    """A trained inverter and its tokenizer from a folder or a Hub repository.

    Args:
        name: folder, `user/name`, or `user/name@revision` with a branch, tag or commit.
        kwargs: of the model's `from_pretrained`. The tokenizer gets those that say where files lie (`revision`, …).

    Raises:
        EmbInvError: for the folder of a run, whose inverters are its `best` and `last`.
        OSError: with one line that says what is wrong with the folder or the repository.
    """
    if "output_loading_info" in kwargs:
        raise EmbInvError("load_inverter returns a model and its tokenizer: leave output_loading_info out.")
    path, pinned = located(name, asks_hub=not kwargs)
    with one_line(name):
        model = EmbInvForMaskedDiffusion.from_pretrained(path, use_safetensors=True, **pinned, **kwargs)
        place = {name: value for name, value in kwargs.items() if name in _PLACE}
        return model, _load_tokenizer(path, model, **pinned, **place)


def _load_tokenizer(path: str, model: EmbInvForMaskedDiffusion, **place: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, checked against the model.

    Args:
        place: where the model's files lie, as for `from_pretrained`.

    Raises:
        EmbInvError: when there is none, or another one.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **place)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise EmbInvError(f"the tokenizer (tokenizer.json) is missing or damaged: {reason}") from error
    check_tokenizer(model.config, tokenizer)
    return tokenizer
