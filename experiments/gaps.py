"""Redacted texts and their vectors: how many of the hidden words the released checkpoint writes.

    python experiments/gaps.py

The longest word of each short text of quality_cost.yaml is hidden. Floors: the visible words alone, without a vector
(guidance 0), and the vector of another text. Writes `results/gaps.json`.
"""

import sys
from dataclasses import asdict

import numpy as np
import torch
from quality_cost import FOLDER, held_out_texts

from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.settings import load_yaml
from modeling_embinv.evaluation.held_out import HeldOut, Measures
from modeling_embinv.loading import load_inverter


def main() -> int:
    experiment = load_yaml(FOLDER / "quality_cost.yaml")
    model, tokenizer = load_inverter(experiment["model"])
    encoder = load_encoder(EncoderConfig.of_inverter(model.config))
    length, (fewest, most) = next(iter(experiment["lengths"].items()))
    held_out, _ = HeldOut.of_texts(
        model, tokenizer, encoder, held_out_texts(experiment, encoder.tokenizer, fewest, most)
    )
    hidden = longest_words(tokenizer, held_out.input_ids, held_out.end)
    drafts = held_out.input_ids.masked_fill(hidden, model.config.mask_token_id)
    rows = {}
    own, other = held_out.embeddings, held_out.embeddings.roll(1, dims=0)
    for name, vectors, guidance in (("own vector", own, 1.0), ("no vector", own, 0.0), ("another text's", other, 1.0)):
        written = model.generate(vectors, draft_ids=drafts, guidance_scale=guidance).sequences.cpu()
        whole = ((written == held_out.input_ids) | ~hidden).all(dim=-1)
        scores = Measures({"hidden words %": 100 * whole.numpy().astype(np.float64)}).scores()
        rows[name] = {"texts": len(whole), **{label: asdict(score) for label, score in scores.items()}}
        print(name, {label: score.shown(1) for label, score in scores.items()}, flush=True)
    write_json(FOLDER / "results" / "gaps.json", {"length": length, "columns": list(scores), "rows": rows})
    return 0


def longest_words(tokenizer, input_ids: torch.Tensor, end: int) -> torch.Tensor:
    """(N, L) bool: the tokens of each row's longest word, the first of equals."""
    hidden = torch.zeros_like(input_ids, dtype=torch.bool)
    for row, ids in enumerate(input_ids.tolist()):
        tokens = tokenizer.convert_ids_to_tokens(ids[: ids.index(end)])
        words = []  # (first, last + 1, characters)
        for index, token in enumerate(tokens):
            if token.startswith("##") and words:
                first, _, size = words[-1]
                words[-1] = (first, index + 1, size + len(token) - 2)
            else:
                words.append((index, index + 1, len(token)))
        first, last, _ = max(words, key=lambda word: word[2])
        hidden[row, first:last] = True
    return hidden


if __name__ == "__main__":
    sys.exit(main())
