"""The word head's stage: which words are in texts, by their vectors, up to the length that the encoder reads."""

from collections.abc import Callable
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.batches import Batches, ChunkBatches
from ..data.noise import UpdateKind
from ..evaluation.word_scores import average_precision
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..texts_embinv import decode_rows
from ..vocabulary_embinv import WordVocabulary
from .part import COUNTED_BATCHES, PartRun

# held-out texts whose logits are computed at a time
ROWS = 64


class WordTraining(PartRun):
    """A run that trains nothing but the word head. All other weights stay bit for bit as they are."""

    @cached_property
    def vocabulary(self) -> WordVocabulary:
        """Which tokens are words."""
        return WordVocabulary.of(self.tokenizer)

    def micro_losses(self, indexes: list[int], canvas: int, kind: UpdateKind) -> list[Callable[[], Tensor]]:
        """Of texts of every length; the inverter's canvas says nothing here."""
        return [partial(self.word_loss, index) for index in indexes]

    def word_loss(self, index: int) -> Tensor:
        """Binary cross entropy of batch `index`, the sum over the vocabulary and the mean over its texts."""
        model, device = self.bare_model, self.accelerator.device
        with self.accelerator.autocast():
            ids, embedding = self.batches.batch(index, self.config.batch_size)
            logits = model.word_logits(embedding.to(device))
        # the table's product, forwards and back to the hidden layer
        self.flops += 4 * logits.numel() * model.config.hidden_size
        target = self.vocabulary.present(ids).to(device)
        return word_losses(logits, target).mean()

    def done_once(self) -> tuple[float, float | None]:
        """See `Run`: the texts of a pool are embedded in the first epoch alone."""
        config = self.config
        if not isinstance(self.batches, ChunkBatches):
            return super().done_once()
        texts = config.batch_size * config.gradient_accumulation_steps * self.accelerator.num_processes
        return self.batches.embedding_time(config.max_steps * texts)

    @torch.no_grad()
    def held_out_scores(self) -> tuple[dict[str, float], list[tuple[str, str]]]:
        """The loss and the mean average precision of held-out texts, and the likeliest words of some."""
        model, held_out = self.bare_model, self.held_out
        losses, precisions = [], []
        for ids, embedding in zip(held_out.input_ids.split(ROWS), held_out.embedding.split(ROWS), strict=True):
            logits, target = model.word_logits(embedding.to(model.device)).cpu(), self.vocabulary.present(ids)
            losses.append(word_losses(logits, target))
            precisions.append(average_precision(logits, target))
        scores = {"loss": float(torch.cat(losses).mean()), "average_precision": float(torch.cat(precisions).nanmean())}
        found = model.words(held_out.embedding[:4], self.tokenizer)
        texts = decode_rows(self.tokenizer, held_out.input_ids[:4], self.noise.end)
        words = [" ".join(word for word, _ in row) for row in found]
        return scores, list(zip(texts, words, strict=True))


def word_losses(logits: Tensor, target: Tensor) -> Tensor:
    """(B,) −log likelihood of the words `target` (B, V) bool under logits (B, V), the sum over the vocabulary."""
    return F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none").sum(dim=1)


@torch.no_grad()
def start_from_counts(
    model: EmbInvForMaskedDiffusion, batches: Batches, batch_size: int, vocabulary: WordVocabulary
) -> None:
    """Give an untrained head the log-odds of each word as its bias: how many training texts hold it.

    Thirty thousand logits would otherwise learn from zero that nearly every word is absent.
    """
    head = model.word_head
    if head is None or bool(head.bias.any()):
        return
    counts = sum(vocabulary.present(batches.ids(index, batch_size)).sum(dim=0) for index in range(COUNTED_BATCHES))
    share = (torch.as_tensor(counts) + 0.5) / (COUNTED_BATCHES * batch_size + 1)
    head.bias.copy_(share.logit())
