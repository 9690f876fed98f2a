"""Warm-up: the condition path learns a text's unordered tokens from its vector, without the trunk."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..data.batches import Batches
from ..errors_embinv import EmbInvError
from ..modeling_embinv import EmbInvForMaskedDiffusion
from .pace import Pace


@dataclass(frozen=True)
class WordWarmUp:
    """A warm-up: its updates, the texts of each, its learning rate, the canvas, and the updates between log lines."""

    steps: int
    batch_size: int
    rate: float
    length: int
    log_steps: int


def warm_up_on_words(
    model: EmbInvForMaskedDiffusion, batches: Batches, settings: WordWarmUp, accelerator: Accelerator
) -> None:
    """Teach the projector, the head's modulation and the output bias a text's unordered tokens from e alone.

    The token embeddings stay: they are the trunk's input, too, and a trunk that is fed other vectors than it was
    pretrained on is worth no more than a random one. It needs no trunk, so it sees tens of texts in the time that a
    full step takes for one. Every process does the same work from the same seed, so they start the main run equal.
    """
    model.to(accelerator.device)
    groups = [
        {"params": [*model.projector.parameters(), model.decoder.bias]},
        # the small features that keep the trunk safe would slow this down, which does not touch the trunk
        {"params": [model.modulation.weight], "lr": settings.rate / model.modulation.scale},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.rate, weight_decay=0.0, fused=True)
    steps = settings.steps
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 20) * (1 - step / steps)
    )
    losses: list[Tensor] = []  # since they were last looked at
    bar = tqdm(range(steps), desc="bag of words", disable=not accelerator.is_main_process, mininterval=10)
    pace = Pace(steps, tqdm.write if accelerator.is_main_process else None, "updates of the warm-up on words")
    for step in bar:
        input_ids, embedding = batches.batch(step, settings.batch_size, settings.length)
        loss = bag_of_words_loss(model, input_ids.to(accelerator.device), embedding.to(accelerator.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.detach())
        pace.note(step + 1)
        if step % settings.log_steps == 0 or step == steps - 1:
            _stop_if_diverged(losses, step)
            losses.clear()
            bar.set_postfix(loss=f"{loss.item():.3f}")
            accelerator.log({"bag_of_words/loss": loss.item()}, step=0)


def _stop_if_diverged(losses: list[Tensor], step: int) -> None:
    lost = (~torch.stack(losses).isfinite()).nonzero()
    if len(lost):
        first = step - len(losses) + 2 + int(lost[0])
        raise EmbInvError(f"bag of words, update {first}: the loss is not finite; try a lower bag_of_words_rate.")


def bag_of_words_loss(model: EmbInvForMaskedDiffusion, input_ids: Tensor, embedding: Tensor) -> Tensor:
    """Mean −log p of the texts' tokens (B, L), all predicted from e (B, D) by the head's shift β alone."""
    condition = model.projector(embedding)
    features = model.timestep_features(torch.ones(len(embedding), device=embedding.device))
    inputs = torch.cat([features.to(condition.dtype), condition], dim=1) * model.modulation.scale
    shift = F.linear(inputs, model.modulation.weight[-model.config.hidden_size :])  # the head's Δβ (B, H)
    logits = F.linear(shift + model.head.norm.bias, model.decoder.weight.detach(), model.decoder.bias)  # (B, V)
    log_p = logits.float().log_softmax(dim=-1)
    is_text = input_ids != model.config.eos_token_id
    return -log_p.gather(1, input_ids)[is_text].mean()
