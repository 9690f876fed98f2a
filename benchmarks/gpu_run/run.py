"""The training loop of one GPU, in commands of so many seconds: it goes on from the machine's disk.

It needs torch and transformers; no `datasets` and no encoder's package. What a batch is, its noise, the weights of the
losses and the optimizers are the package's own. What is new here: batches are made by threads while the GPU computes,
texts are embedded on it, and the rate falls by the clock.
"""

import json
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from modeling_embinv.configuration_embinv import EmbInvConfig
from modeling_embinv.data.noise import (
    CausalBatch,
    NoisedBatch,
    UpdateKind,
    canvas_length,
    causal_batch,
    kind_of_update,
    noise_batch,
)
from modeling_embinv.data.spans import SpanSampler
from modeling_embinv.diffusion_embinv import loss_weights, text_positions
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.inputs_embinv import Fingerprint
from modeling_embinv.modeling_embinv import EmbInvForMaskedDiffusion
from modeling_embinv.runtime import generator_for
from modeling_embinv.training.backbone import load_backbone
from modeling_embinv.training.config import TrainingConfig
from modeling_embinv.training.corrections import added_positions, write_hypotheses, writing_operations
from modeling_embinv.training.drafts import draft_operations, write_drafts
from modeling_embinv.training.flops import matmul_rate, training_flops
from modeling_embinv.training.optimizers import new_optimizers

from . import corpus
from .encoder import PackedEncoder

STATE, LOG, SETTINGS = "state.pt", "log.jsonl", "run.json"
# batches that are made ahead, and the threads that make them
AHEAD, THREADS = 8, 4
# seconds between two states on the disk, and updates between two lines of the log
SAVE_SECONDS, LOG_UPDATES = 120, 50


class GPURun:
    """A run on the machine's disk.

    Args:
        disk: the folder that holds what was sent, and the run's state.
    """

    def __init__(self, disk: Path) -> None:
        self.disk, settings = disk, json.loads((disk / SETTINGS).read_text())
        self.config = TrainingConfig(**settings["config"])
        self.seconds, self.decay_share = settings["seconds"], settings["decay_share"]
        self.correction_start = settings["correction_start"]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.train_texts, self.validation_texts = (self.sampler(name) for name in ("train", "validation"))
        self.vocabulary = self.train_texts.corpus.vocabulary
        self.encoder = PackedEncoder(disk, self.device)
        self.model = new_model(self.config, self.encoder, self.vocabulary).to(self.device).train()
        self.noise = self.config.noise_of(self.model)
        self.rates = self.config.rates()
        self.optimizers = new_optimizers(self.model, self.rates)
        self.live = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.average = [weight.detach().clone() for weight in self.live]
        self.updates, self.spent = 0, 0.0  # of all commands together
        if (disk / STATE).exists():
            self.load(torch.load(disk / STATE, map_location=self.device, weights_only=True))
        if self.config.compile:
            self.model.trunk.compile(dynamic=False)

    def sampler(self, name: str) -> SpanSampler:
        """Texts of a split."""
        config = self.config
        texts = corpus.load(self.disk, name)
        return SpanSampler(texts, config.max_sequence_length, config.seed, whole_share=config.whole_share)

    def train(self, budget: float, updates: int | None = None) -> dict[str, Any]:
        """Train until the budget or the run's seconds are spent, or for so many updates; what was reached.

        Args:
            budget: seconds from now, the saving and the validation at the end not counted.
            updates: at most, in this command.
        """
        start, before = time.monotonic(), self.spent
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        limit, saved, first = matmul_rate(self.device, dtype), start, self.updates
        last = self.updates + updates if updates is not None else None
        since, texts, operations, losses = time.monotonic(), 0, 0.0, deque(maxlen=LOG_UPDATES)
        for kind, batch in self.batches():
            self.spent = before + time.monotonic() - start
            if time.monotonic() - start >= budget or self.spent >= self.seconds or self.updates == last:
                break
            if kind == "correction" and self.spent < self.correction_start * self.seconds:
                kind = "causal"  # drafts come first
            loss, done = self.update(kind, batch)
            losses.append((kind, loss))
            texts, operations = texts + len(batch.input_ids), operations + done
            if self.updates % LOG_UPDATES == 0:
                seconds, since = time.monotonic() - since, time.monotonic()
                self.log(losses, texts / seconds, operations / seconds / limit)
                texts, operations = 0, 0.0
            if time.monotonic() - saved >= SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()
        reached = {"updates": self.updates, "of_this_command": self.updates - first, "spent": round(self.spent, 1),
                   "of": self.seconds, "nats_a_token": self.validate()}  # fmt: skip
        self.write_line(reached)
        return reached

    def batches(self) -> Iterator[tuple[UpdateKind, NoisedBatch | CausalBatch]]:
        """Batches from where the run stands, made ahead by threads; each is a function of (seed, update)."""
        with ThreadPoolExecutor(THREADS) as pool:
            waiting = deque(pool.submit(self.batch, self.updates + ahead) for ahead in range(AHEAD))
            try:
                for update in range(self.updates + AHEAD, 10**9):
                    yield waiting.popleft().result()
                    waiting.append(pool.submit(self.batch, update))
            finally:
                for future in waiting:
                    future.cancel()

    def batch(self, update: int) -> tuple[UpdateKind, NoisedBatch | CausalBatch]:
        """What an update learns, and its batch without its vectors, which the GPU makes."""
        config = self.config
        canvas = canvas_length(config.canvas_lengths or [config.max_sequence_length], config.seed, update)
        kind = kind_of_update(config.causal_share, config.correction_share, config.seed, update)
        rows = self.noise.texts_of(config.batch_size) if kind == "masked" else config.batch_size
        ids, generator = self.train_texts.batch(update, rows, canvas), generator_for(config.seed, update)
        nothing = torch.empty(rows, 0)
        if kind == "masked":
            return kind, noise_batch(ids, nothing, self.noise, generator)
        dropout = config.condition_dropout if kind == "causal" else 0.0
        return kind, causal_batch(ids, nothing, self.noise.end, generator, dropout)

    def update(self, kind: UpdateKind, batch: NoisedBatch | CausalBatch) -> tuple[Tensor, float]:
        """One update; its loss, which is not waited for, and its operations."""
        factor = self.rate_factor()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
        batch.embedding = self.encoder.encode_ids(batch.input_ids.to(self.device), self.noise.end)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            written = self.write_hypotheses(batch) if kind == "correction" and isinstance(batch, CausalBatch) else 0.0
            loss, operations = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.live, self.config.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        decay = min(self.config.ema_decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.average, [weight.detach() for weight in self.live], 1 - decay)
        self.updates += 1
        return loss.detach(), operations + written

    def write_hypotheses(self, batch: CausalBatch) -> float:
        """Gives a batch what its texts correct; the operations of that."""
        (rows, length), generator = batch.input_ids.shape, generator_for(self.config.seed, self.updates, 3)
        batch.hypothesis = write_hypotheses(self.model, self.embed, batch.embedding, length, generator)
        return writing_operations(self.model, rows, length)

    def embed(self, ids: Tensor) -> Tensor:
        """(B, D) the encoder's vectors of texts (B, L)."""
        return self.encoder.encode_ids(ids, self.noise.end)

    def loss(self, batch: NoisedBatch | CausalBatch) -> tuple[Tensor, float]:
        """The loss of a batch as in `Run.loss` and `Run.causal_loss`, and its operations."""
        (rows, length), count, device = batch.input_ids.shape, len(batch.positions), self.device
        where = {name: getattr(batch, name).to(device) for name in ("condition_mask", "positions", "targets")}
        if isinstance(batch, CausalBatch):
            ids = batch.input_ids.to(device)
            hypothesis = batch.hypothesis
            loss = self.model(ids, batch.embedding, None, **where, causal=True, hypothesis=hypothesis).loss
            return loss, training_flops(self.model, rows, added_positions(self.model, hypothesis) + length - 1, count)
        write_drafts(self.model, self.model, batch)
        weights = loss_weights(self.config.loss_weight, batch.timestep, batch.masked, self.noise.schedule)
        weights = weights[batch.positions // length] * batch.position_weights
        ids, timestep = batch.noised_ids.to(device), batch.timestep.to(device)
        loss = self.model(ids, batch.embedding, timestep, **where, target_weights=weights.to(device)).loss
        return loss, training_flops(self.model, rows, length, count) + draft_operations(self.model, batch)

    def rate_factor(self) -> float:
        """Linear warm-up by updates, then constant, then a line down to 0 over the last share of the seconds."""
        left = max(1 - self.spent / self.seconds, 0.0)
        return min(1.0, (self.updates + 1) / max(self.rates.warmup_steps, 1), left / max(self.decay_share, 1e-9))

    @torch.no_grad()
    def validate(self) -> float | None:
        """Mean −log p a token of held-out texts from left to right, by the averaged weights."""
        if not self.config.causal_share:
            return None
        ids = self.validation_texts.batch(0, self.config.validation_size).to(self.device)
        vectors = self.encoder.encode_ids(ids, self.noise.end)
        if fingerprint := Fingerprint.of(vectors):
            self.model.config.encoder_fingerprint = fingerprint.to_text()
        with self.averaged(), torch.compiler.set_stance("force_eager"):
            total = sum(
                float(self.model.log_likelihood(*part).sum())
                for part in zip(ids.split(256), vectors.split(256), strict=True)
            )
        return -total / int(text_positions(ids, self.noise.end).sum())

    @contextmanager
    @torch.no_grad()
    def averaged(self) -> Iterator[None]:
        """The model holds the averaged weights inside the `with` block."""
        kept = [weight.detach().clone() for weight in self.live]
        torch._foreach_copy_(self.live, self.average)
        try:
            yield
        finally:
            torch._foreach_copy_(self.live, kept)

    def save(self) -> None:
        """Write the state, whole or not at all.

        Raises:
            EmbInvError: where the weights are not finite; the state before them stays.
        """
        if not all(bool(weight.isfinite().all()) for weight in self.live):
            raise EmbInvError(f"update {self.updates}: the weights are not finite. The state before them is kept.")
        state = {"updates": self.updates, "spent": self.spent, "model": self.live, "average": self.average,
                 "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}  # fmt: skip
        torch.save(state, self.disk / f"{STATE}.tmp")
        (self.disk / f"{STATE}.tmp").replace(self.disk / STATE)

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """The inverse of `save`."""
        self.updates, self.spent = state["updates"], state["spent"]
        torch._foreach_copy_(self.live, state["model"])
        torch._foreach_copy_(self.average, state["average"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)

    def log(self, losses: "deque[tuple[UpdateKind, Tensor]]", texts: float, share: float) -> None:
        """A line of the mean losses and the speed."""
        means = {}
        for name in ("masked", "causal", "correction"):
            if mine := [loss for kind, loss in losses if kind == name]:
                means["loss" if name == "masked" else f"loss_{name}"] = round(float(torch.stack(mine).mean()), 4)
        speed = {"texts_a_second": round(texts), "share_of_matmul_rate": round(share, 3)}
        self.write_line({"updates": self.updates, "spent": round(self.spent, 1), **means, **speed})

    def write_line(self, values: dict[str, Any]) -> None:
        """To the log on the disk and to the screen."""
        with (self.disk / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        print(json.dumps(values), flush=True)


def new_model(config: TrainingConfig, encoder: PackedEncoder, vocabulary: Any) -> EmbInvForMaskedDiffusion:
    """An inverter whose trunk starts as the encoder's; a deeper one repeats its stack of layers (arXiv 2405.15319)."""
    torch.manual_seed(config.seed)
    about = encoder.about
    backbone = BertConfig(**about["backbone"])
    own, depth = backbone.num_hidden_layers, config.num_hidden_layers or backbone.num_hidden_layers
    backbone.num_hidden_layers = depth
    backbone.hidden_dropout_prob = backbone.attention_probs_dropout_prob = 0.0
    model = EmbInvForMaskedDiffusion(EmbInvConfig(
        backbone_config=backbone, embedding_dim=backbone.hidden_size, vocab_size=backbone.vocab_size,
        max_sequence_length=config.max_sequence_length, canvas_lengths=config.canvas_lengths,
        num_condition_tokens=config.num_condition_tokens, causal_share=config.causal_share,
        correction_share=config.correction_share,
        noise_schedule=config.noise_schedule, noise_lambda=config.noise_lambda,
        mask_token_id=vocabulary.mask, eos_token_id=vocabulary.end, pad_token_id=vocabulary.pad,
        encoder_id=about["id"], encoder_revision=about["revision"], encoder_prompt=about["prompt"],
    ))  # fmt: skip
    source, weights = BertModel(backbone, add_pooling_layer=False), encoder.network.state_dict()
    for layer in range(own, depth):
        begin = f"encoder.layer.{layer % own}."
        weights |= {
            name.replace(begin, f"encoder.layer.{layer}.", 1): weight
            for name, weight in encoder.network.state_dict().items()
            if name.startswith(begin)
        }
    source.load_state_dict({name: weights[name] for name in source.state_dict()})
    load_backbone(model, source)
    return model
