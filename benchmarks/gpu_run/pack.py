"""Pack the two uploads of a GPU run: the texts as token ids, and the encoder.

    python -m benchmarks.gpu_run.pack configs/minilm_long.yaml --out runs/gpu --seconds 1500 --num-hidden-layers 12 ...

All flags of train.py change the recipe for the GPU. The trunk starts from the encoder's layers.
"""

import argparse
import json
import shutil
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.sources import read_texts
from modeling_embinv.data.spans import TokenizedCorpus
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.training.arguments import parse_training_config
from modeling_embinv.training.config import TrainingConfig

from . import corpus, parcels
from . import encoder as encoder_files

UPLOADS = ("upload_1", "upload_2")
# bytes of the texts: with the code and the settings they are one upload
TEXTS = 45 * 2**20


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of both uploads")
    parser.add_argument("--seconds", type=float, default=1500, help="of training in all commands together")
    parser.add_argument("--decay-share", type=float, default=0.2, help="last share of them, over which the rate falls")
    parser.add_argument(
        "--correction-start", type=float, default=0.5, help="share of them before the corrector begins to learn"
    )
    options, flags = parser.parse_known_args(arguments)
    try:
        config = parse_training_config([*flags, "--output_dir", "runs/gpu"], prog="pack")
        shares = options.decay_share, options.correction_start
        for name, weight in pack(config, options.out, options.seconds, *shares).items():
            print(f"{name:24} {weight / 2**20:6.2f} MiB")
    except EmbInvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def pack(
    config: TrainingConfig, out: Path, seconds: float, decay_share: float, correction_start: float = 0.5
) -> dict[str, int]:
    """Write both uploads; the bytes of every file.

    Raises:
        EmbInvError: for an encoder that is no BERT with mean pooling, for more text than an upload holds, and for
            rows with drafts.
    """
    if config.draft_share:
        raise EmbInvError("a GPU run knows no draft_share: leave it at 0.")
    config = replace(config, init_from=None, backbone="encoder", backbone_config=None)
    encoder = load_encoder(EncoderConfig.from_yaml(config.encoder))
    first, second = (out / name for name in UPLOADS)
    for folder in (first, second):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    held_out = tokenized(config, encoder.vocabulary, "validation")
    rows = {row.tobytes() for part, _ in held_out for row in documents(part)}
    training = [(without(part, rows), times) for part, times in tokenized(config, encoder.vocabulary, "train")]
    corpus.save(first, "train", training)
    corpus.save(first, "validation", held_out)
    texts = sum(path.stat().st_size for path in first.iterdir())
    if texts > TEXTS:
        raise EmbInvError(f"the texts take {texts / 2**20:.1f} MiB, more than {TEXTS // 2**20}: leave some out.")
    settings = {"config": asdict(config), "seconds": seconds, "decay_share": decay_share,
                "correction_start": correction_start}  # fmt: skip
    (first / parcels.SETTINGS).write_text(json.dumps(settings))
    encoder_files.save(second, encoder)
    for folder in (first, second):
        parcels.seal(folder)
    return {f"{folder.name}/{path.name}": path.stat().st_size
            for folder in (first, second) for path in sorted(folder.iterdir())}  # fmt: skip


def documents(part: TokenizedCorpus) -> list[np.ndarray]:
    """The ids of each document, (its tokens,) int32."""
    return np.split(part.ids, part.offsets[1:-1])


def without(part: TokenizedCorpus, held_out: set[bytes]) -> TokenizedCorpus:
    """A corpus less the documents whose ids are held out, which may stand in another file in another letter case."""
    kept = [row for row in documents(part) if row.tobytes() not in held_out]
    return replace(part, ids=np.concatenate(kept), offsets=np.cumsum([0, *map(len, kept)]))


def tokenized(config: TrainingConfig, vocabulary, split: str) -> list[tuple[TokenizedCorpus, int]]:
    """Each file's documents of a split, and how often the file is named: so many times as often they are drawn."""
    parts = []
    for path, times in Counter(config.texts or []).items():
        try:
            texts = read_texts(path, column=config.text_column)
            parts.append((TokenizedCorpus.build(texts, vocabulary, split=split, show_progress=False), times))
        except EmbInvError:
            if split == "train":
                raise  # a small file may have no document to hold out
    if not parts:
        raise EmbInvError(f"no document in split {split!r}: give more text.")
    return parts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
