"""What a cosine says of a text: how many texts are exact, and which share of the content words is right, by cosine.

    python experiments/verdicts.py HELD_OUT/*.txt    # the eight parts of `make checkpoint`; minutes of a core, in int8

Writes `results/verdicts.json`, a row for each text of the presets "standard" and "quick": its cosine by the surrogate,
which judged it, and by the encoder; and the same of vectors that are no text's (every fourth one, rotated). Drafts are
among them because a search leaves few texts that have the gist alone. `verdicts_embinv.py` has its thresholds from it.
"""

import argparse
import sys
from pathlib import Path

import torch
from run import FOLDER

from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.data.content_words import count_recovered
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.tokens import tokenize
from modeling_embinv.evaluation import metrics
from modeling_embinv.loading import load_inverter
from modeling_embinv.presets_embinv import PRESETS
from modeling_embinv.runtime import keep_large_blocks
from modeling_embinv.texts_embinv import decode, decode_rows

OF_EACH_FILE, BATCH, FEWEST = 8, 8, 4


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="held-out texts, one a line")
    paths = parser.parse_args(arguments).files
    if missing := [path for path in paths if not path.is_file()]:
        parser.error(f"{missing[0]}: no such file")
    keep_large_blocks()
    model, tokenizer = load_inverter(str(CHECKPOINT))
    model.eval().to_int8()
    encoder = load_encoder(EncoderConfig.of_inverter(model.config))
    texts = [text for path in paths for text in drawn(path, tokenizer, model.config.max_sequence_length - 1)]
    vectors = encoder.encode(texts)
    rotation = torch.linalg.qr(torch.randn(vectors.shape[1], vectors.shape[1], generator=generator(1)))[0]
    runs = {
        "texts": (texts, vectors),
        "another encoder's": ([""] * len(texts[::4]), torch.nn.functional.normalize(vectors[::4] @ rotation, dim=-1)),
    }
    rows = [
        {"run": name, "preset": preset, **row}
        for preset in ("standard", "quick")
        for name, (originals, targets) in runs.items()
        for row in inverted(model, tokenizer, encoder, originals, targets, preset)
    ]
    write_json(FOLDER / "results" / "verdicts.json", {"rows": rows})
    return 0


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(path: Path, tokenizer, most: int) -> list[str]:
    """Lines of a file that fit the model, at even distances."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return spread(lines, tokenizer, range(FEWEST, most + 1), OF_EACH_FILE)


def spread(texts: list[str], tokenizer, lengths: range, count: int) -> list[str]:
    """Up to `count` texts of so many tokens, at even distances."""
    found = map(len, tokenize(tokenizer, texts)) if texts else ()
    fitting = [text for text, length in zip(texts, found, strict=True) if length in lengths]
    return fitting[:: max(1, len(fitting) // count)][:count]


def inverted(model, tokenizer, encoder, originals, targets, preset) -> list[dict]:
    """A row for each text: its cosine by the surrogate and by the encoder, whether it is exact, its content words."""
    rows, end = [], model.config.eos_token_id
    for start in range(0, len(targets), BATCH):
        part = targets[start : start + BATCH]
        output = model.generate(part, generator=generator(start), feedback="surrogate", **PRESETS[preset].settings)
        texts = decode_rows(tokenizer, output.sequences, end)
        written = decode(tokenizer, tokenize(tokenizer, originals[start : start + BATCH]))
        cosines = metrics.cosine(encoder.encode(texts), part)
        for index, text in enumerate(texts):
            recovered, words = count_recovered(originals[start + index], text)
            rows.append(
                {
                    "surrogate": round(output.cosine[index].item(), 6),
                    "encoder": round(cosines[index].item(), 6),
                    "exact": text == written[index] != "",
                    "recovered": recovered,
                    "words": words,
                }
            )
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
