"""The training loop of one GPU, in commands of so many seconds: it goes on from the machine's disk.

It needs torch and transformers; no `datasets` and no encoder's package. What a batch is, its noise, the weights of the
losses and the optimizers are the package's own. What is new here: batches are made by threads while the GPU computes,
texts are embedded on it, hypotheses of the corrector are written thousands at a time, and the rate falls with time.
"""

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from modeling_embinv import cross_entropy_embinv
from modeling_embinv.data.noise import UpdateKind
from modeling_embinv.data.spans import SpanSampler
from modeling_embinv.diffusion_embinv import text_positions
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.fingerprint_embinv import Fingerprint
from modeling_embinv.training.config import TrainingConfig
from modeling_embinv.training.corrections import added_positions
from modeling_embinv.training.flops import matmul_rate, synchronize, training_flops
from modeling_embinv.training.optimizers import new_optimizers

from . import corpus
from .batches import Batches, Part, kind_of
from .encoder import PackedEncoder
from .hypotheses import uncompiled, write_pool
from .muon import BatchedMuon
from .parcels import CONFIG, LOG, SETTINGS, WEIGHTS
from .scores import CORRECTIONS, held_out_scores
from .start import new_model

STATE = "state.pt"
# seconds between two states on the disk, and updates between two lines of the log
SAVE_SECONDS, LOG_UPDATES = 150, 100
# held-out texts of each canvas that are drafted and corrected at a validation
HELD_OUT = 512
# how far a run is
NUMBERS = ("updates", "drawn", "texts", "spent")


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
        self.batches = Batches(self.config, self.train_texts, self.noise, is_pinned=self.device.type == "cuda")
        self.rates = self.config.rates()
        self.optimizers = new_optimizers(self.model, self.rates)
        if self.device.type == "cuda":
            self.optimizers = [batched(optimizer) for optimizer in self.optimizers]
            # halves the bytes of everything between two matrix products
            self.model.trunk.embeddings.register_forward_hook(lambda _module, _inputs, hidden: hidden.bfloat16())
        self.live = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.average = [weight.detach().clone() for weight in self.live]
        self.writing = 0.0  # seconds of hypotheses since the last line of the log
        # updates, batches drawn, texts seen and seconds of all commands together
        self.updates, self.drawn, self.texts, self.spent = 0, 0, 0, 0.0
        if (disk / STATE).exists():
            self.load(torch.load(disk / STATE, map_location=self.device, weights_only=True))
        if self.config.compile:
            torch._dynamo.config.recompile_limit = 64
            for layer in self.model.trunk.layers:  # all share what is compiled for one
                layer.compile(dynamic=False)
            cross_entropy_embinv.differences = torch.compile(cross_entropy_embinv.differences)

    def sampler(self, name: str) -> SpanSampler:
        """Texts of a split; held-out ones are whole."""
        config = self.config
        share = config.whole_share if name == "train" else 1.0
        return SpanSampler(corpus.load(self.disk, name), config.max_sequence_length, config.seed, whole_share=share)

    def train(self, budget: float, updates: int | None = None) -> dict[str, Any]:
        """Train until the budget or the run's seconds are spent, or for so many updates; what was reached.

        Args:
            budget: seconds from now, the saving and the validation at the end not counted.
            updates: no batch is begun in this command after so many.
        """
        start, before = time.monotonic(), self.spent
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        limit, saved, first = matmul_rate(self.device, dtype), start, self.updates
        last = self.updates + (10**9 if updates is None else updates)
        since, texts, operations, losses = time.monotonic(), self.texts, 0.0, deque(maxlen=LOG_UPDATES)
        for kind, batch in self.batches.from_number(self.drawn):
            self.spent = before + time.monotonic() - start
            if time.monotonic() - start >= budget or self.spent >= self.seconds or self.updates >= last:
                break
            for part in self.parts(kind, batch):
                self.spent = before + time.monotonic() - start
                loss, done = self.update(part)
                losses.append((kind_of(part), loss))
                operations += done
                if self.updates % LOG_UPDATES == 0:
                    seconds = -since + (since := time.monotonic())
                    self.log(losses, (self.texts - texts) / seconds, operations / seconds / limit, seconds)
                    texts, operations = self.texts, 0.0
            self.drawn += 1
            if time.monotonic() - saved >= SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
                self.write_line({"updates": self.updates, "texts": self.texts, **self.validate()})
                since, texts, operations = time.monotonic(), self.texts, 0.0
        self.save()
        reached = {"updates": self.updates, "of_this_command": self.updates - first, "texts": self.texts,
                   "spent": round(self.spent, 1), "of": self.seconds, **self.validate()}  # fmt: skip
        self.write_line(reached)
        return reached

    def parts(self, kind: UpdateKind, batch: list[Part]) -> Iterator[Part]:
        """What each update needs, on the device: vectors too, and the hypotheses of a corrector."""
        if kind == "correction" and self.spent < self.correction_start * self.seconds:
            batch = batch[:1]  # drafts come first
        batch = [{name: value.to(self.device, non_blocking=True) for name, value in part.items()} for part in batch]
        ids = torch.cat([part["input_ids"] for part in batch])
        vectors = self.embed(ids)
        for part, own in zip(batch, vectors.split(self.config.batch_size), strict=True):
            part["embedding"] = own
        if len(batch) > 1:
            torch.manual_seed(self.config.seed + self.drawn)
            order = torch.randperm(len(ids), device=self.device)  # rows of a pool differ in kind
            synchronize(self.device)
            began = time.monotonic()
            with self.autocast():
                hypothesis = write_pool(self.model, self.embed, ids[order], vectors[order]).rows(order.argsort())
            synchronize(self.device)
            self.writing += time.monotonic() - began
            for part, rows in zip(batch, torch.arange(len(ids)).split(self.config.batch_size), strict=True):
                part["hypothesis"] = hypothesis.rows(rows.to(self.device))
        yield from batch

    def autocast(self) -> torch.autocast:
        """Matrix products in bf16 on a GPU. Weights that were cast without gradients must not be used with them."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def update(self, part: Part) -> tuple[Tensor, float]:
        """One update; its loss, which is not waited for, and its operations."""
        factor = self.rate_factor()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
        with self.autocast():
            loss, operations = self.loss(part)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.live, self.config.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        decay = min(self.config.ema_decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.average, [weight.detach() for weight in self.live], 1 - decay)
        self.updates, self.texts = self.updates + 1, self.texts + len(part["input_ids"])
        return loss.detach(), operations

    def embed(self, ids: Tensor) -> Tensor:
        """(B, D) the encoder's vectors of texts (B, L)."""
        return self.encoder.encode_ids(ids, self.noise.end)

    def loss(self, part: Part) -> tuple[Tensor, float]:
        """The loss as in `BatchLosses.loss` and `BatchLosses.causal_loss`, and the operations of both passes."""
        (rows, length), count = part["input_ids"].shape, len(part["positions"])
        rest = {name: part[name] for name in ("condition_mask", "positions", "targets")}
        if kind_of(part) == "masked":
            loss = self.model(
                part["noised_ids"], part["embedding"], part["timestep"],
                target_weights=part["target_weights"], **rest,
            ).loss  # fmt: skip
            return loss, training_flops(self.model, rows, length, count)
        hypothesis = part.get("hypothesis")
        loss = self.model(part["input_ids"], part["embedding"], None, causal=True, hypothesis=hypothesis, **rest).loss
        return loss, training_flops(self.model, rows, added_positions(self.model, hypothesis) + length - 1, count)

    def rate_factor(self) -> float:
        """Linear warm-up by updates, then constant, then a line down to 0 over the last share of the seconds."""
        left = max(1 - self.spent / self.seconds, 0.0)
        return min(1.0, (self.updates + 1) / max(self.rates.warmup_steps, 1), left / max(self.decay_share, 1e-9))

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """Of held-out texts, by the averaged weights: −log p a token from left to right, drafts, corrections."""
        config, found = self.config, {}
        if not config.causal_share:
            return {}
        is_correcting = config.correction_share and self.spent >= self.correction_start * self.seconds
        with self.averaged(), self.autocast(), uncompiled(self.model):
            for canvas in config.canvas_lengths or [config.max_sequence_length]:
                ids = self.validation_texts.batch(0, config.validation_size, canvas).to(self.device)
                vectors, count = self.embed(ids), int(text_positions(ids, self.noise.end).sum())
                parts = zip(ids.split(256), vectors.split(256), strict=True)
                total = sum(float(self.model.log_likelihood(*part).sum()) for part in parts)
                scores = held_out_scores(self.model, self.encoder, ids[:HELD_OUT], CORRECTIONS if is_correcting else 0)
                found[f"nats_a_token_{canvas}"] = round(-total / count, 4)
                found |= {f"{name}_{canvas}": value for name, value in scores.items()}
        if fingerprint := Fingerprint.of(vectors):
            self.model.config.encoder_fingerprint = fingerprint.to_text()
        self.save_config()  # with the fingerprint
        return found

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

    @torch.no_grad()
    def snapshot(self) -> dict[str, Tensor]:
        """The averaged weights in fp16."""
        with self.averaged():
            return {
                name: weight.detach().to("cpu", torch.float16).contiguous()
                for name, weight in self.model.state_dict().items() if name not in self.model._tied_weights_keys
            }  # fmt: skip

    def save(self) -> None:
        """Write the state, whole or not at all.

        Raises:
            EmbInvError: where the weights are not finite; the state before them stays.
        """
        if not all(bool(weight.isfinite().all()) for weight in self.live):
            raise EmbInvError(f"update {self.updates}: the weights are not finite. The state before them is kept.")
        numbers = {name: getattr(self, name) for name in NUMBERS}
        state = {**numbers, "model": self.live, "average": self.average,
                 "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}  # fmt: skip
        torch.save(state, self.disk / f"{STATE}.tmp")
        (self.disk / f"{STATE}.tmp").replace(self.disk / STATE)
        save_file(self.snapshot(), self.disk / f"{WEIGHTS}.tmp")
        (self.disk / f"{WEIGHTS}.tmp").replace(self.disk / WEIGHTS)
        self.save_config()

    def save_config(self) -> None:
        """Write what the weights belong to."""
        (self.disk / CONFIG).write_text(json.dumps(self.model.config.to_dict()))

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """The inverse of `save`."""
        for name in NUMBERS:
            setattr(self, name, state[name])
        torch._foreach_copy_(self.live, state["model"])
        torch._foreach_copy_(self.average, state["average"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)

    def log(self, losses: "deque[tuple[UpdateKind, Tensor]]", texts: float, share: float, seconds: float) -> None:
        """A line of the mean losses and the speed."""
        means = {}
        for name in ("masked", "causal", "correction"):
            if mine := [loss for kind, loss in losses if kind == name]:
                means["loss" if name == "masked" else f"loss_{name}"] = round(float(torch.stack(mine).mean()), 4)
        speed = {"texts_a_second": round(texts), "share_of_matmul_rate": round(share, 3)}
        speed["writing_share"], self.writing = round(self.writing / seconds, 3), 0.0
        numbers = {"updates": self.updates, "texts": self.texts, "spent": round(self.spent, 1)}
        self.write_line({**numbers, **means, **speed})

    def write_line(self, values: dict[str, Any]) -> None:
        """To the log on the disk and to the screen."""
        with (self.disk / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        print(json.dumps(values), flush=True)


def batched(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Muon's matrices together; any other optimizer as it is."""
    if type(optimizer) is not torch.optim.Muon:
        return optimizer
    group = optimizer.param_groups[0]
    settings = {name: group[name] for name in ("lr", "weight_decay", "adjust_lr_fn")}
    return BatchedMuon(group["params"], **settings)
