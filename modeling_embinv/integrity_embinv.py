"""What loading asks of a checkpoint: whole, unchanged since it was saved, and with the tokenizer of its model."""

import json
import logging
import mmap
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME
from transformers.utils import SAFE_WEIGHTS_NAME
from transformers import PreTrainedTokenizerBase
from transformers.utils.hub import cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from .errors_embinv import EmbInvError
from .errors_embinv import shown
from .storage_embinv import compressed
from .storage_embinv import expand
from .storage_embinv import loading

# keys of config.json that change nothing in what a model writes
FREE_SETTINGS = {"architectures", "auto_map", "checksums", "custom_pipelines", "transformers_version"}
FLOATS = {"F64", "F32", "F16", "BF16"}
NAMED = 3
# arguments of `from_pretrained` that say where files lie
HUB = ("cache_dir", "proxies", "revision", "subfolder", "token")
_AGAIN = "download it again; to change it on purpose, load the model, change that and call save_pretrained"


class CheckedLoading:
    """Goes before `PreTrainedModel`: weights that do not fit or were damaged are an error, not a warning."""

    config: Any

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *model_args: Any,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As `PreTrainedModel.from_pretrained`, and every weight comes from the checkpoint.

        Args:
            ignore_mismatched_sizes: true lets weights of another shape start anew. Missing and unexpected weights are
                an error all the same.

        Raises:
            EmbInvError: for missing or unexpected weights, and for those of another shape, of integers or not finite;
                and where config.json has a checksum, for weights that differ from what was saved.
        """
        with _no_report(), loading():
            model, info = super().from_pretrained(  # type: ignore[misc]  # PreTrainedModel's, which comes next
                pretrained_model_name_or_path,
                *model_args,
                ignore_mismatched_sizes=True,  # refused below, in one line
                output_loading_info=True,
                **kwargs,
            )
        check_names(info, ignore_mismatched_sizes)
        if pretrained_model_name_or_path is not None:
            hub = {name: kwargs[name] for name in HUB if kwargs.get(name) is not None}
            checksum = None if kwargs.get("variant") else (model.config.checksums or {}).get("weights")
            check_files(str(pretrained_model_name_or_path), checksum, hub, model.config.weight_bits == 8)
        if model.config.weight_bits:
            expand(model)
        _check_finite(model)
        return (model, info) if output_loading_info else model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        *args: Any,
        weight_bits: int | None = None,
        **kwargs: Any,
    ) -> None:
        """As `PreTrainedModel.save_pretrained`; config.json then carries checksums of the weights and the settings.

        A `variant`, a distributed checkpoint, and what `push_to_hub=True` uploads have none for the weights.

        Args:
            weight_bits: 8 stores each row of a matrix as 8-bit integers and its largest weight, a quarter of the bytes
                of float32. Loading makes floating-point weights of them.

        Raises:
            EmbInvError: for another number of bits, or where somebody set config.weight_bits.
        """
        if weight_bits not in (None, 8):
            raise EmbInvError(f"weight_bits must be 8 or None, got {shown(weight_bits)}.")
        if weight_bits is not None:
            with compressed(self) as state:
                self._save_sealed(save_directory, is_main_process, *args, **{**kwargs, "state_dict": state})
        elif self.config.weight_bits is None:
            self._save_sealed(save_directory, is_main_process, *args, **kwargs)
        else:
            raise EmbInvError(
                "config.weight_bits must be None, as a loaded model holds floats; to store 8 bits, call "
                "save_pretrained(folder, weight_bits=8)."
            )

    def _save_sealed(
        self, save_directory: str | os.PathLike[str], is_main_process: bool, *args: Any, **kwargs: Any
    ) -> None:
        """What the model holds, or a `state_dict`, in the layout that config.json says, with checksums."""
        vocabulary = (self.config.checksums or {}).get("vocabulary", "")
        kept = vocabulary.startswith(f"{self.config.vocab_size}-")  # else the tokenizer has grown since
        self.config.checksums = {"vocabulary": vocabulary} if kept else None
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)  # type: ignore[misc]  # as above
        if is_main_process:
            variant, is_distributed = kwargs.get("variant"), kwargs.get("distributed_checkpoint")
            if not is_distributed:
                _drop_earlier(Path(save_directory), variant)
            self.config.checksums = seal(Path(save_directory), not variant and not is_distributed)


def _drop_earlier(folder: Path, variant: str | None) -> None:
    """Delete what an earlier save left beside the weights: loading prefers a single file, be it older than shards."""
    part = f".{variant}" if variant else ""
    is_sharded = any(folder.glob(f"model{part}-?????-of-?????.safetensors"))  # the library deletes earlier shards
    earlier = folder / (f"model{part}.safetensors" if is_sharded else f"model.safetensors.index{part}.json")
    if earlier.is_file():
        earlier.unlink()


@contextmanager
def _no_report() -> Iterator[None]:
    """Without the library's table of weights that do not fit: our error names them."""
    logger = logging.getLogger("transformers.modeling_utils")

    def keep(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in str(record.msg)

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def check_names(info: dict[str, Any], ignore_mismatched_sizes: bool = False) -> None:
    """Raises ValueError when the weights of a checkpoint are not exactly those of the model."""
    shapes = {} if ignore_mismatched_sizes else {name: shapes for name, *shapes in info["mismatched_keys"]}
    wrong = [f"{name} has shape {tuple(theirs)} for {tuple(ours)}" for name, (theirs, ours) in sorted(shapes.items())]
    found = {"missing": info["missing_keys"], "unexpected": info["unexpected_keys"]}
    faults = [f"{kind} {_some(sorted(names))}" for kind, names in found.items() if names]
    if faults + wrong:
        raise EmbInvError(
            f"the weights do not fit config.json: {'; '.join(faults + ([_some(wrong)] if wrong else []))}. The "
            "checkpoint is damaged or incomplete: download it again."
        )


def _some(names: list[str]) -> str:
    """The first few, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def check_files(name: str, checksum: str | None, hub: dict[str, Any], has_integers: bool = False) -> None:
    """Raises EmbInvError for weights that are not floating point, or that have another checksum than `checksum`.

    Args:
        name: folder or repository.
        checksum: of the weights, from config.json; None for a checkpoint without.
        hub: which revision and cache, as for `cached_file`. Nothing is downloaded: the model is loaded already.
        has_integers: whether matrices are stored in 8 bits.
    """
    try:
        files = weight_files(name, hub)
    except OSError:
        if checksum is None:
            return  # pytorch_model.bin, from elsewhere
        raise
    allowed = FLOATS | {"I8"} if has_integers else FLOATS
    kinds = {weight: kind for file in files for weight, kind in _kinds(file).items() if kind not in allowed}
    if kinds:
        named = _some([f"{weight} ({kind})" for weight, kind in sorted(kinds.items())])
        raise EmbInvError(f"weights must be floating point, these are not: {named}. Download the checkpoint again.")
    if checksum is not None and weights_checksum(files) != checksum:
        raise EmbInvError(f"the weights are not the ones that were saved, their checksum differs: {_AGAIN}.")


def weight_files(name: str, hub: dict[str, Any]) -> list[str]:
    """The safetensors of a folder or of a repository in the cache, in the library's order of preference.

    Raises:
        OSError: when there are none.
    """
    hub = {**hub, "local_files_only": True}
    try:
        return [cached_file(name, SAFE_WEIGHTS_NAME, **hub)]  # type: ignore[list-item]  # None is for optional files
    except OSError:
        files, _ = get_checkpoint_shard_files(name, cached_file(name, SAFE_WEIGHTS_INDEX_NAME, **hub), **hub)
        return files


def weights_checksum(files: list[str]) -> str:
    """Of names, dtypes, shapes and bytes of all tensors, in whatever order and files they are. 63 MB take 0.04 s."""
    lines = []
    for file in files:
        with Path(file).open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start, header = _header(content)
            for name, tensor in header.items():
                first, last = tensor["data_offsets"]
                with memoryview(content) as view, view[start + first : start + last] as part:
                    lines.append(f"{name} {tensor['dtype']} {tensor['shape']} {zlib.crc32(part):08x}")
    return _digest("\n".join(sorted(lines)))


def _header(content: mmap.mmap) -> tuple[int, dict[str, dict[str, Any]]]:
    """Where the tensors of a safetensors file start, and what it says of each."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    return 8 + size, header


def _kinds(file: str) -> dict[str, str]:
    """The dtype of each tensor of a safetensors file, in its own spelling."""
    with Path(file).open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return {name: tensor["dtype"] for name, tensor in _header(content)[1].items()}


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _is_finite(weight: Tensor) -> bool:
    """By the sum first, which takes a tenth of the time and is finite only if all are."""
    return bool(weight.sum(dtype=torch.float32).isfinite()) or bool(weight.isfinite().all())


@torch.no_grad()
def _check_finite(model: nn.Module) -> None:
    weights = model.named_parameters()
    wrong = [name for name, weight in weights if not weight.is_meta and not _is_finite(weight)]
    if wrong:
        raise EmbInvError(f"weights must be finite, these are not: {_some(wrong)}. Download the checkpoint again.")


def settings_checksum(settings: dict[str, Any]) -> str:
    """Of all keys of config.json that decide what the model writes."""
    fixed = {key: value for key, value in settings.items() if key not in FREE_SETTINGS and not key.startswith("_")}
    return _digest(json.dumps(fixed, sort_keys=True))


def check_settings(settings: dict[str, Any]) -> None:
    """Raises ValueError when the settings of a config.json are not the ones that its checksum was made of."""
    checksums = settings.get("checksums")
    if checksums is None:
        return  # saved before there were any
    if not isinstance(checksums, dict) or not all(isinstance(value, str) for value in checksums.values()):
        raise EmbInvError(f"config.json: checksums must be a table of texts, got {checksums!r}.")
    if checksums.get("settings", "") not in ("", settings_checksum(settings)):
        raise EmbInvError(
            f"config.json is not the one that was saved with the weights, its checksum differs: {_AGAIN}."
        )


def seal(folder: Path, whole: bool = True) -> dict[str, str] | None:
    """Add checksums of the settings and, if `whole`, of the weights to a saved config.json; returns them."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    settings = json.loads(path.read_text(encoding="utf-8"))
    checksums = {**(settings.get("checksums") or {}), "settings": settings_checksum(settings)}
    if whole:
        checksums["weights"] = weights_checksum(weight_files(str(folder), {}))
    partial = folder / "config.json.partial"
    text = json.dumps({**settings, "checksums": checksums}, indent=2, sort_keys=True)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
    return checksums


def vocabulary_checksum(tokenizer: PreTrainedTokenizerBase) -> str:
    """Number of tokens and a checksum of their ids, such as 30522-00c0ffee00c0ffee."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return (
        _checksum_of(tokenizer.get_vocab())
        if backend is None
        else _known_checksum(backend.__class__, backend.to_str())
    )


@lru_cache(maxsize=2)  # a tenth of a second for 30,000 tokens, and a run of training asks for it at each export
def _known_checksum(kind: Any, written: str) -> str:
    """Of a fast tokenizer, by its class and its JSON, which is written in a tenth of that time."""
    return _checksum_of(kind.from_str(written).get_vocab())


def _checksum_of(vocabulary: dict[str, int]) -> str:
    words = sorted(zip(vocabulary.values(), vocabulary, strict=True))
    return f"{len(words)}-{_digest(json.dumps(words))}"


def role_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    """The ids of [MASK], of the end of a text (eos, or else sep) and of padding (pad, or else the end)."""
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    return {"mask_token_id": tokenizer.mask_token_id, "eos_token_id": end, "pad_token_id": pad}


def check_tokenizer(config: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ValueError when a tokenizer is not the one that a model was trained with, as far as config.json knows."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise EmbInvError(f"tokenizer must be this model's tokenizer, got {shown(tokenizer)}.")
    theirs = {"vocab_size": len(tokenizer), **role_ids(tokenizer)}
    pairs = [(name, value, getattr(config, name)) for name, value in theirs.items()]
    faults = [f"{name} is {value} for {ours}" for name, value, ours in pairs if value != ours]
    known = (config.checksums or {}).get("vocabulary")
    if not faults and known is not None and vocabulary_checksum(tokenizer) != known:
        faults = ["its tokens are others, or in another order"]
    if faults:
        raise EmbInvError(
            f"the tokenizer (tokenizer.json) is not the model's: {'; '.join(faults)}. Take the one that was saved "
            "with the model."
        )
