"""BLEU and exact texts of held-out drafts, and of drafts that were corrected, as training goes."""

from pathlib import Path

import torch
from sacrebleu.metrics.bleu import BLEU
from tokenizers import Tokenizer
from torch import Tensor

from modeling_embinv.conditioning_embinv import Hypothesis
from modeling_embinv.modeling_embinv import EmbInvForMaskedDiffusion

from .encoder import PackedEncoder
from .hypotheses import uncompiled, write

TOKENIZER = Path(__file__).parents[2] / "checkpoints" / "embinv-minilm" / "tokenizer.json"
CORRECTIONS = 3


@torch.no_grad()
def held_out_scores(
    model: EmbInvForMaskedDiffusion, encoder: PackedEncoder, ids: Tensor, corrections: int
) -> dict[str, float]:
    """BLEU and the share of exact texts, in percent, of greedy drafts of texts (N, L), and after each correction.

    Args:
        corrections: how many of them; 0 before the corrector has learned anything.
    """
    end = model.config.eos_token_id
    embedding = encoder.encode_ids(ids, end)
    found, scores = None, {}
    with uncompiled(model):
        for number in range(1 + corrections):
            hypothesis = None if found is None else Hypothesis(found, encoder.encode_ids(found, end))
            found = write(model, embedding, ids.shape[1], 0.0, hypothesis)
            name = f"corrected_{number}" if number else "draft"
            cosine = float((encoder.encode_ids(found, end) * embedding).sum(dim=1).mean())
            scores |= {f"{name}_{key}": value for key, value in text_scores(found, ids, end).items()}
            scores[f"{name}_cosine"] = round(cosine, 4)
    return scores


def text_scores(found: Tensor, wanted: Tensor, end: int) -> dict[str, float]:
    """BLEU, and the share of rows that are equal."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    ours, theirs = (
        tokenizer.decode_batch([[token for token in row if token != end] for row in rows.tolist()])
        for rows in (found, wanted)
    )
    exact = sum(left == right for left, right in zip(ours, theirs, strict=True)) / len(ours)
    return {"bleu": round(BLEU().corpus_score(ours, [theirs]).score, 2), "exact": round(100 * exact, 2)}
