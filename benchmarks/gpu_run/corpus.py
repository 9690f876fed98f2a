"""A tokenised corpus in few bytes: token ids as uint16 and documents' lengths, both xz."""

import json
import lzma
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from modeling_embinv.data.spans import TokenizedCorpus
from modeling_embinv.errors_embinv import EmbInvError


def save(folder: Path, name: str, parts: list[tuple[TokenizedCorpus, int]]) -> None:
    """Write corpora, each with the number of times that its documents are drawn as often, as `name.*` of a folder."""
    vocabulary = parts[0][0].vocabulary
    if len(vocabulary.special) > 2**16:
        raise EmbInvError(f"a vocabulary of {len(vocabulary.special):,} tokens does not fit 16 bits.")
    ids = np.concatenate([corpus.ids for corpus, _ in parts]).astype("<u2")
    lengths = np.concatenate([np.diff(corpus.offsets) for corpus, _ in parts]).astype("<u4")
    _write(folder / f"{name}.ids.xz", ids)
    _write(folder / f"{name}.lengths.xz", lengths)
    about = {
        "end": vocabulary.end, "mask": vocabulary.mask, "pad": vocabulary.pad, "size": len(vocabulary.special),
        "word_starts": np.packbits(vocabulary.word_starts).tobytes().hex(),
        "parts": [[len(corpus), times] for corpus, times in parts],
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(about))


def load(folder: Path, name: str) -> TokenizedCorpus:
    """The corpora as one, with the documents of a part as many times as it is drawn as often."""
    about = json.loads((folder / f"{name}.json").read_text())
    lengths = _read(folder / f"{name}.lengths.xz", "<u4").astype(np.int64)
    ids = _read(folder / f"{name}.ids.xz", "<u2").astype(np.int32)
    begins = np.cumsum([0, *(count for count, _ in about["parts"])])
    borders = np.concatenate([[0], np.cumsum(lengths)])[begins]
    times = [times for _, times in about["parts"]]
    all_ids, all_lengths = (
        np.concatenate([np.tile(part, n) for part, n in zip(np.split(values, at[1:-1]), times, strict=True)])
        for values, at in ((ids, borders), (lengths, begins))
    )
    starts = np.unpackbits(np.frombuffer(bytes.fromhex(about["word_starts"]), np.uint8), count=about["size"])
    known = {key: about[key] for key in ("end", "mask", "pad", "size")}
    vocabulary = SimpleNamespace(**known, word_starts=starts.astype(bool))
    return TokenizedCorpus(all_ids, np.concatenate([[0], np.cumsum(all_lengths)]), vocabulary)


def _write(path: Path, values: np.ndarray) -> None:
    """Numbers, whose bytes repeat at a distance of their size."""
    power = values.dtype.itemsize.bit_length() - 1
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 3, "lp": power, "pb": power}]
    filters[0]["lc"] = min(3, 4 - power)
    with lzma.open(path, "wb", filters=filters) as file:
        file.write(values.tobytes())


def _read(path: Path, kind: str) -> np.ndarray:
    with lzma.open(path) as file:
        return np.frombuffer(file.read(), kind)
