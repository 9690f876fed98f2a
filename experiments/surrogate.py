"""How well the released checkpoint's surrogate tracks the encoder, on the texts of quality_cost.yaml.

    python experiments/surrogate.py

Writes `results/surrogate.json`: the cosine of both vectors of a held-out text, and Spearman's ρ of both orders of 16
texts that the inverter sampled for one vector; once more with the surrogate in int8. Of the longer texts of fill.yaml,
up to what the surrogate judges, the cosine alone.
"""

import copy
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import fill
import numpy as np
import torch
from quality_cost import FOLDER, held_out_texts
from torch.nn.utils.rnn import pad_sequence

from modeling_embinv.data.batches import embed_rows
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.settings import load_yaml
from modeling_embinv.evaluation.held_out import HeldOut, Measures
from modeling_embinv.loading import load_inverter
from modeling_embinv.modeling_embinv import EmbInvForMaskedDiffusion
from modeling_embinv.runtime import keep_large_blocks
from modeling_embinv.training.distillation import agreement, ranking, sampled_texts

SAMPLED, LONG_TEXTS = 16, 64
COLUMNS = ("cosine", "rank correlation")


def of_long_texts(model: EmbInvForMaskedDiffusion, tokenizer: Any) -> Iterator[tuple[str, np.ndarray]]:
    """(row, (N,) cosines) for each length of texts that does not fit on the canvas: lines of a document, joined."""
    bench = fill.Bench(load_yaml(FOLDER / "fill.yaml"))
    for size in bench.experiment["lengths"]:
        if size >= model.config.max_sequence_length:
            texts = [hidden.text for hidden in bench.long_texts(size, LONG_TEXTS)]
            rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
            end = model.config.eos_token_id
            ids = pad_sequence([torch.tensor([*row, end]) for row in rows], batch_first=True, padding_value=end)
            yield f"texts of about {size} tokens", agreement(model, ids, bench.encoder.encode(texts)).numpy()


def main() -> int:
    experiment = load_yaml(FOLDER / "quality_cost.yaml")
    keep_large_blocks()
    model, tokenizer = load_inverter(experiment["model"])
    model.eval()
    surrogates = {"": model, ", in int8": copy.deepcopy(model).to_int8()}
    encoder = load_encoder(EncoderConfig.of_inverter(model.config))
    rows = {}
    for length, (fewest, most) in experiment["lengths"].items():
        texts = held_out_texts(experiment, encoder.tokenizer, fewest, most)
        held_out, _ = HeldOut.of_texts(model, tokenizer, encoder, texts)
        ids = sampled_texts(model, held_out.embeddings, SAMPLED)
        vectors = embed_rows(encoder, ids.flatten(0, 1)).unflatten(0, ids.shape[:2])
        for name, holder in surrogates.items():
            ranks = ranking(holder, held_out.embeddings, ids, vectors)
            values = {
                "cosine": agreement(holder, held_out.input_ids, held_out.embeddings),
                "rank correlation": ranks[~ranks.isnan()],  # of a sure vector all sampled texts are the same
            }
            scores = {key: Measures({key: of_texts.numpy()}).scores()[key] for key, of_texts in values.items()}
            rows[f"texts of at most {length}{name}"] = {label: asdict(score) for label, score in scores.items()}
            print(length, name, {label: score.shown(3) for label, score in scores.items()}, flush=True)
    for name, values in of_long_texts(model, tokenizer):
        rows[name] = {"cosine": asdict(Measures({"cosine": values}).scores()["cosine"])}
        print(name, rows[name], flush=True)
    write_json(FOLDER / "results" / "surrogate.json", {"columns": list(COLUMNS), "digits": 3, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
