"""(input_ids, embedding) pairs on disk: shards of Arrow streams, and the manifest that names them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value, concatenate_datasets
from numpy.typing import NDArray

from ..errors_embinv import EmbInvError
from .encoder_config import same_setting
from .files import one_line, reading
from .sources import SPLITS

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
# what to do where a folder holds too few texts out
MORE_TEXTS = "prepare more texts, or with a larger --validation-share, in another folder"
# what every version notes
_TYPES = {
    "complete": bool, "documents": int, "dropped": dict, "end_token_id": int, "length": int, "rows": dict,
    "shards": dict,
}  # fmt: skip


def write_shard(path: Path, ids: NDArray[np.int32], vectors: NDArray[np.float16]) -> None:
    """Rows (N, L) and vectors (N, D) as an Arrow stream, which `datasets` maps into memory as it is."""
    features = Features(
        {
            "input_ids": List(Value("int32"), length=ids.shape[1]),
            "embedding": List(Value("float16"), length=vectors.shape[1]),
        }
    )
    columns = [pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1]) for rows in (ids, vectors)]
    table = pa.Table.from_arrays(columns, schema=features.arrow_schema)
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table, max_chunksize=1000)


def stored_ids(out_dir: str | Path, manifest: Mapping[str, Any], split: str) -> Iterator[NDArray[np.int32]]:
    """The rows of `input_ids` of a split, each (L,) int32; errors as of `load_pairs`."""
    count = 0
    for file in shard_files(out_dir, manifest, split):
        with _reading(out_dir, file), pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as reader:
            for batch in reader:
                count += len(batch)
                yield from batch["input_ids"].flatten().to_numpy().reshape(len(batch), -1)
    _check_rows(out_dir, manifest, split, count)


def shard_files(out_dir: str | Path, manifest: Mapping[str, Any], split: str) -> list[Path]:
    """The shards of a split; raises an EmbInvError that names one that is missing."""
    files = [Path(out_dir) / split / name for name in manifest["shards"][split]]
    if missing := [file for file in files if not file.exists()]:
        raise EmbInvError(f"{missing[0]} is missing: {_anew(out_dir)}")
    return files


@contextmanager
def _reading(out_dir: str | Path, file: Path) -> Iterator[None]:
    """Names a shard that cannot be read, and says what to do about it."""
    try:
        with reading(file):
            yield
    except EmbInvError as error:
        raise EmbInvError(f"{error}: {_anew(out_dir)}") from error


def _check_rows(out_dir: str | Path, manifest: Mapping[str, Any], split: str, count: int) -> None:
    """Raises EmbInvError for other rows than were written: a shard that was cut between two batches reads as whole."""
    if count != manifest["rows"][split]:
        rows = manifest["rows"][split]
        raise EmbInvError(f"{Path(out_dir) / split} holds {count} rows in place of {rows}: {_anew(out_dir)}")


def _anew(out_dir: str | Path) -> str:
    # prepare goes on with a folder as it is, and makes no shard a second time
    return f"delete {out_dir} and run its `embinv prepare` again"


def read_manifest(out_dir: str | Path) -> dict[str, Any]:
    """What `prepare` knows about its folder.

    Keys: the arguments (`encoder_id`, `encoder_revision`, `encoder_prompt`, `encoder_task`, `length`, `shard_size`,
    `validation_share`, …), `embedding_dim`, `end_token_id`, `vocabulary` (the tokenizer's, by its checksum; older
    folders have none), `format_version`, `complete`, `documents` (read so far), `rows` and `shards` by split, and
    `dropped` rows by reason.

    Raises:
        EmbInvError: no manifest, a damaged one, or one of another format version.
    """
    path = Path(out_dir) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if path.parent.name in SPLITS and (path.parents[1] / MANIFEST).exists():
            raise EmbInvError(f"{out_dir} is a split of prepared pairs: give {path.parents[1]}.") from error
        raise EmbInvError(f"{out_dir} holds no manifest.json; make the folder with `embinv prepare`") from error
    except OSError as error:
        raise EmbInvError(f"{path}: cannot be read: {one_line(error)}") from error
    except ValueError as error:
        raise EmbInvError(f"{path}: cannot be read: {one_line(error)}: {_anew(out_dir)}") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if not isinstance(manifest, dict) or version != FORMAT_VERSION:
        raise EmbInvError(f"{path}: format version {version}; this software reads {FORMAT_VERSION}: {_anew(out_dir)}")
    if wrong := [name for name, kind in _TYPES.items() if not isinstance(manifest.get(name), kind)]:
        raise EmbInvError(f"{path}: {', '.join(wrong)} missing or of another type: {_anew(out_dir)}")
    return manifest


def check_pairs(out_dir: str | Path, config: Any) -> None:
    """Raises EmbInvError for a folder whose vectors or tokens are not those of an inverter with this `config`."""
    own = {name: getattr(config, name) for name in ("encoder_id", "encoder_revision", "encoder_prompt")}
    own |= {"embedding_dim": config.embedding_dim, "end_token_id": config.eos_token_id}
    theirs, mask = str(read_manifest(out_dir).get("vocabulary")), config.mask_token_id
    # where the encoder's tokenizer had no [MASK], the inverter's has one token more, the last one
    has_added_mask = mask == config.vocab_size - 1 and theirs.startswith(f"{mask}-")
    vocabulary = (config.checksums or {}).get("vocabulary")  # a model that was never saved has none
    if vocabulary and not has_added_mask:
        own["vocabulary"] = vocabulary
    prepared_with(own, out_dir, "the model has")


def prepared_with(wanted: Mapping[str, Any], out_dir: str | Path, who: str) -> dict[str, Any]:
    """The manifest of a folder that was prepared with the `wanted` values of these keys, as far as it has them.

    Raises:
        EmbInvError: see `read_manifest`, and a key with another value than `who`, say "this run wants", has.
    """
    manifest = read_manifest(out_dir)
    for name, value in wanted.items():
        # an older version noted less
        if name in manifest and not same_setting(name, manifest[name], value):
            raise EmbInvError(
                f"{out_dir} was prepared with {name} {manifest[name]}, {who} {value}; `embinv prepare` makes a folder "
                "that fits."
            )
    return manifest


def load_pairs(out_dir: str | Path, split: str = "train") -> Dataset:
    """The rows of one split, memory-mapped: `input_ids` (L,) int32 and `embedding` (D,) float16.

    Raises:
        EmbInvError: not a finished folder of `prepare`, no such split, or a shard that is missing, damaged or cut.
    """
    manifest = read_manifest(out_dir)
    if not manifest["complete"]:
        raise EmbInvError(
            f"{out_dir} is not finished ({manifest['documents']} documents); run its `embinv prepare` again"
        )
    if not manifest["shards"].get(split):
        present = [name for name in SPLITS if manifest["rows"][name]]
        hint = "" if split == "train" else f". Prepare more texts, or with a larger --{split}-share, in another folder"
        raise EmbInvError(f"{out_dir} has no rows in split {split!r}; present: {', '.join(present)}{hint}")
    shards = []
    for file in shard_files(out_dir, manifest, split):
        with _reading(out_dir, file):
            shards.append(Dataset.from_file(str(file)))
    pairs = concatenate_datasets(shards)
    _check_rows(out_dir, manifest, split, len(pairs))
    return pairs
