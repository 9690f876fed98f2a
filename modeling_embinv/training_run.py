"""The training loop: updates, logs, validations, checkpoints."""

import json
import math
import time
from collections import defaultdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, on_main_process
from torch import Tensor
from tqdm.auto import tqdm

from .batches import NoisedBatch, canvas_length, causal_batch, generator_for, is_causal_update, noise_batch
from .checkpoints import EMA, Progress, export, load_newest, save_checkpoint
from .diffusion_embinv import loss_weights
from .flops import matmul_rate, training_flops
from .modeling_embinv import EmbInvForMaskedDiffusion
from .training_config import TrainingConfig
from .validation import causal_score, generation_scores, masked_scores


class JSONLinesTracker(GeneralTracker):
    """Metrics as one JSON object a line; needs no package."""

    name = "jsonl"
    requires_logging_directory = False

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    @property
    def tracker(self) -> Path:
        return self.path

    @on_main_process
    def log(self, values: dict, step: int | None = None, **_):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


class Run:
    """A training run: its parts, and the loop in paragraphs."""

    def __init__(self, config, accelerator, model, tokenizer, encoder, optimizer, scheduler, batches, held_out):
        self.config, self.accelerator, self.model, self.tokenizer = config, accelerator, model, tokenizer
        self.encoder, self.optimizer, self.scheduler = encoder, optimizer, scheduler
        self.batches, self.held_out = batches, held_out
        self.bare_model = accelerator.unwrap_model(model)
        self.schedule = config.schedule
        self.ema = EMA(self.bare_model, config.ema_decay)
        self.progress = Progress()
        self.flops = 0.0  # of this process since the last log line
        self.folder = Path(config.output_dir)
        accelerator.register_for_checkpointing(self.scheduler, self.ema, self.progress)

    def loop(self) -> Path:
        config, accelerator = self.config, self.accelerator
        if config.resume and (loaded := load_newest(accelerator, self.folder)):
            accelerator.print(f"continuing from {loaded}")
        kind = _compute_dtype(accelerator)
        limit = matmul_rate(accelerator.device, kind)
        accelerator.print(f"matrix products on this device: {limit / 1e12:.2f} TFLOP/s in {kind}")
        bar = tqdm(
            total=config.max_steps, initial=self.progress.step, desc="training", unit="step", mininterval=10,
            disable=not accelerator.is_main_process,
        )  # fmt: skip
        losses, texts, since = defaultdict(list), 0, time.perf_counter()
        while self.progress.step < config.max_steps:
            causal = is_causal_update(config.causal_share, config.seed, self.progress.step)
            loss, grad_norm = self.update(self.progress.step, causal)
            losses["train/loss_causal" if causal else "train/loss"].append(loss)
            texts += config.batch_size * config.gradient_accumulation_steps * accelerator.num_processes
            self.progress.step += 1
            bar.update()

            if self.progress.step % config.log_steps == 0:
                means = {name: float(torch.stack(values).mean()) for name, values in losses.items()}
                values = {
                    **means,
                    "train/grad_norm": float(grad_norm),
                    "train/learning_rate": self.scheduler.get_last_lr()[0],
                    "train/texts_per_second": texts / (time.perf_counter() - since),
                    "train/share_of_matmul_rate": self.flops / (time.perf_counter() - since) / limit,
                }
                accelerator.log(values, step=self.progress.step)
                shown = {name.removeprefix("train/"): f"{mean:.3f}" for name, mean in means.items()}
                bar.set_postfix(**shown, texts_s=f"{values['train/texts_per_second']:.0f}")
                losses, texts, self.flops, since = defaultdict(list), 0, 0.0, time.perf_counter()
            if self.progress.step % config.eval_steps == 0 or self.progress.step == config.max_steps:
                self.validate()
                since = time.perf_counter()
            if self.progress.step % config.save_steps == 0 or self.progress.step == config.max_steps:
                save_checkpoint(accelerator, self.folder, self.progress.step, config.keep_checkpoints)
                since = time.perf_counter()
        bar.close()
        last = self.export("last")
        accelerator.end_training()
        return last

    def update(self, step: int, causal: bool = False) -> tuple[Tensor, Tensor]:
        """One optimizer update, masked or `causal`; returns its mean loss and gradient norm."""
        config, accelerator = self.config, self.accelerator
        canvas = canvas_length(config.canvas_lengths or [config.max_sequence_length], config.seed, step)
        total = 0.0
        for micro in range(config.gradient_accumulation_steps):
            index = step * config.gradient_accumulation_steps + micro
            index = index * accelerator.num_processes + accelerator.process_index
            with accelerator.accumulate(self.model):
                loss = self.causal_loss(index, canvas) if causal else self.batch_loss(index, canvas)
                self.backward(loss)
                if accelerator.sync_gradients:
                    grad_norm = accelerator.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
            total = total + loss.detach() / config.gradient_accumulation_steps
        self.scheduler.step()
        self.ema.update()
        return total, grad_norm

    def batch_loss(self, index: int, canvas: int) -> Tensor:
        """The loss of batch `index` of all processes."""
        return self.loss(self.noised_batch(index, canvas))

    def backward(self, loss: Tensor):
        self.accelerator.backward(loss)

    def noised_batch(self, index: int, canvas: int) -> NoisedBatch:
        """Batch `index` of all processes with its noise, both functions of (seed, index)."""
        input_ids, embedding = self.batches.batch(index, self.config.batch_size, canvas)
        tokens = self.bare_model.config
        return noise_batch(
            input_ids,
            embedding,
            self.schedule,
            tokens.mask_token_id,
            generator_for(self.config.seed, index),
            self.config.full_mask_share,
            self.config.condition_dropout,
            tokens.eos_token_id,
            self.config.tail_share,
        )

    def loss(self, batch: NoisedBatch) -> Tensor:
        """Σ over rows of w(t) Σ over masked positions of −log p (Eq. 4), logits at masked positions only."""
        device = self.accelerator.device
        self.flops += training_flops(self.bare_model, *batch.input_ids.shape, len(batch.positions))
        weights = loss_weights(self.config.loss_weight, batch.timestep, batch.masked, self.schedule)
        return self.model(
            batch.noised_ids.to(device),
            batch.embedding.to(device),
            batch.timestep.to(device),
            condition_mask=batch.condition_mask.to(device),
            positions=batch.positions.to(device),
            targets=batch.targets.to(device),
            target_weights=(weights[batch.positions // batch.input_ids.shape[1]] * batch.position_weights).to(device),
        ).loss

    def causal_loss(self, index: int, canvas: int) -> Tensor:
        """Mean −log p of the texts and their ends, from left to right, of batch `index` of all processes."""
        ids, embedding = self.batches.batch(index, self.config.batch_size, canvas)
        generator = generator_for(self.config.seed, index)
        end, device = self.bare_model.config.eos_token_id, self.accelerator.device
        batch = causal_batch(ids, embedding, end, generator, self.config.condition_dropout)
        # the last token is no input
        self.flops += training_flops(self.bare_model, len(ids), batch.input_ids.shape[1] - 1, len(batch.positions))
        return self.model(
            batch.input_ids.to(device),
            batch.embedding.to(device),
            None,
            condition_mask=batch.condition_mask.to(device),
            positions=batch.positions.to(device),
            targets=batch.targets.to(device),
            causal=True,
        ).loss

    def validate(self):
        """Log held-out scores of the averaged weights, and keep the best of them."""
        model = self.bare_model.eval()
        # generation has batches of every size: compiling for each would take longer than running them
        with self.ema.applied(), torch.compiler.set_stance("force_eager"):
            scores, samples = self.held_out_scores()
        model.train()
        self.accelerator.log({f"validation/{name}": value for name, value in scores.items()}, step=self.progress.step)
        if self.accelerator.is_main_process:
            line = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
            texts = "".join(f"\n    {original}\n  → {recovered}" for original, recovered in samples[:4])
            tqdm.write(f"step {self.progress.step}: {line}{texts}")
        if scores["loss"] < self.progress.best:
            self.progress.best = scores["loss"]
            self.export("best")

    def held_out_scores(self) -> tuple[dict[str, float], list[tuple[str, str]]]:
        """Scores, "loss" among them, and pairs (original, recovered)."""
        share, settings = self.config.causal_share, {}
        scores = masked_scores(self.bare_model, self.held_out)
        if share:
            scores["loss_causal"] = causal_score(self.bare_model, self.held_out)
        if share == 1:  # of the order that was learned
            scores["loss"], settings = scores["loss_causal"], {"strategy": "autoregressive"}
        generated, samples = generation_scores(
            self.bare_model, self.tokenizer, self.encoder, self.held_out, **settings
        )
        return scores | generated, samples

    def export(self, name: str) -> Path:
        """Write the averaged weights as a folder that `AutoModel` loads."""
        with self.ema.applied():
            state_dict = self.accelerator.get_state_dict(self.model)
            if self.accelerator.is_main_process:
                export(self.bare_model, self.tokenizer, self.folder / name, state_dict)
        self.accelerator.wait_for_everyone()
        return self.folder / name


def learning_rate_factor(config: TrainingConfig, step: int) -> float:
    """Linear warm-up to 1, then constant or a cosine down to 0 at max_steps."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.lr_scheduler == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(config.max_steps - config.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def new_optimizer(model: EmbInvForMaskedDiffusion, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the trainable weights; norms and biases do not decay, token embeddings have a rate of their own."""
    embeddings = model.get_input_embeddings().weight
    weights = [weight for weight in model.parameters() if weight.requires_grad and weight is not embeddings]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    if embeddings.requires_grad:
        rate = config.learning_rate * config.embedding_rate
        groups.append({"params": [embeddings], "lr": rate, "weight_decay": config.weight_decay})
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _compute_dtype(accelerator: Accelerator) -> torch.dtype:
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision, torch.float32)
