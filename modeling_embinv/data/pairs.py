"""(input_ids, embedding) pairs on disk: shards of Arrow streams, and the manifest that names them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value, concatenate_datasets
from numpy.typing import NDArray

from ..errors_embinv import EmbInvError
from .encoder_config import same_setting
from .files import reading
from .sources import SPLITS

FORMAT_VERSION = 1
MANIFEST = "manifest.json"


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


def stored_ids(path: Path) -> Iterator[NDArray[np.int32]]:
    """The rows of `input_ids` in a shard, each (L,) int32."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
        for batch in reader:
            yield from batch["input_ids"].flatten().to_numpy().reshape(len(batch), -1)


def read_manifest(out_dir: str | Path) -> dict[str, Any]:
    """What `prepare` knows about its folder.

    Keys: the arguments (`encoder_id`, `encoder_revision`, `encoder_prompt`, `encoder_task`, `length`, `shard_size`,
    `validation_share`, …), `embedding_dim`, `end_token_id`, `format_version`, `complete`, `documents` (read so far),
    `rows` and `shards` by split, and `dropped` rows by reason.

    Raises:
        EmbInvError: no manifest, a damaged one, or one of another format version.
    """
    path = Path(out_dir) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EmbInvError(f"{out_dir} holds no manifest.json; make the folder with `embinv prepare`") from error
    except (OSError, ValueError) as error:
        raise EmbInvError(f"{path}: cannot be read: {error}") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if not isinstance(manifest, dict) or version != FORMAT_VERSION:
        raise EmbInvError(
            f"{path}: format version {version}; this software reads {FORMAT_VERSION}: prepare the folder again"
        )
    return manifest


def check_pairs(out_dir: str | Path, config: Any) -> None:
    """Raises EmbInvError for a folder whose vectors or tokens are not those of an inverter with this `config`."""
    own = {"encoder_id": config.encoder_id, "embedding_dim": config.embedding_dim, "end_token_id": config.eos_token_id}
    prepared_with(own, out_dir, "the model has")


def prepared_with(wanted: Mapping[str, Any], out_dir: str | Path, who: str) -> dict[str, Any]:
    """The manifest of a folder that was prepared with the `wanted` values of these keys.

    Raises:
        EmbInvError: see `read_manifest`, and a key with another value than `who`, say "this run wants", has.
    """
    manifest = read_manifest(out_dir)
    for name, value in wanted.items():
        if not same_setting(name, manifest[name], value):
            raise EmbInvError(
                f"{out_dir} was prepared with {name} {manifest[name]}, {who} {value}; `embinv prepare` makes a folder "
                "that fits."
            )
    return manifest


def load_pairs(out_dir: str | Path, split: str = "train") -> Dataset:
    """The rows of one split, memory-mapped: `input_ids` (L,) int32 and `embedding` (D,) float16.

    Raises:
        EmbInvError: not a finished folder of `prepare`, no such split, or a shard is missing or damaged.
    """
    manifest = read_manifest(out_dir)
    if not manifest["complete"]:
        raise EmbInvError(
            f"{out_dir} is not finished ({manifest['documents']} documents); run its `embinv prepare` again"
        )
    names = manifest["shards"].get(split)
    if not names:
        present = [name for name in SPLITS if manifest["rows"][name]]
        raise EmbInvError(f"{out_dir} has no rows in split {split!r}; present: {', '.join(present)}")
    files = [Path(out_dir) / split / name for name in names]
    if missing := [str(file) for file in files if not file.exists()]:
        raise EmbInvError(f"{missing[0]} is missing; prepare the folder again")
    shards = []
    for file in files:
        with reading(file):
            shards.append(Dataset.from_file(str(file)))
    return concatenate_datasets(shards)
