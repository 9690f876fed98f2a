"""The training loop."""

import dataclasses
import json
import logging
import math
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, on_main_process
from accelerate.utils import set_seed
from torch import Tensor
from tqdm.auto import tqdm

from .allocator import keep_large_blocks
from .backbone import adopt_encoder, load_inverter, new_inverter, prepare_tokenizer
from .bag_of_words import warm_up_on_words
from .batches import (
    NoisedBatch,
    PairBatches,
    SpanBatches,
    canvas_length,
    generator_for,
    held_out_pairs,
    noise_batch,
)
from .checkpoints import EMA, Progress, export, load_newest, save_checkpoint
from .correction_embinv import Hypothesis
from .data import load_pairs, read_manifest
from .diffusion_embinv import NoiseSchedule, loss_weights
from .encoders import EncoderConfig, SentenceEncoder, load_encoder, packaged_folder
from .flops import matmul_rate, training_flops
from .hypotheses import sample_hypotheses
from .modeling_embinv import EmbInvForMaskedDiffusion
from .sources import read_texts
from .spans import SpanSampler, TokenizedCorpus
from .training_config import TrainingConfig
from .validation import ValidationSet, generation_scores, masked_scores


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


def train(config: TrainingConfig) -> Path:
    """Train, validate, save and export; returns the folder of the last exported model.

    Raises:
        ValueError: for settings or data that do not fit together.
        OSError: for a checkpoint that cannot be read.
    """
    keep_large_blocks()
    # a sharp softmax is full of numbers below 1e-38, on which a CPU's multiplications take many times as long
    torch.set_flush_denormal(True)
    # tied weights are saved once, which accelerate would report at every checkpoint
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
    set_seed(config.seed)
    output_dir = Path(config.output_dir)
    trackers = [JSONLinesTracker(output_dir / "log.jsonl") if name == "jsonl" else name for name in config.trackers]
    accelerator = Accelerator(
        gradient_accumulation_steps=config.gradient_accumulation_steps, log_with=trackers, project_dir=str(output_dir)
    )
    accelerator.init_trackers("embinv", config=_plain(config))

    encoder = load_encoder(EncoderConfig.from_yaml(config.encoder), device=accelerator.device)
    model, tokenizer = build_model(config, encoder)
    batches, held_out = build_data(config, encoder, model)
    if config.bag_of_words_steps and not (config.resume and list(output_dir.glob("step-*"))):
        warm_up_on_words(model, batches, config, accelerator)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if config.compile:
        model.trunk.compile(dynamic=False)

    model, optimizer = accelerator.prepare(model, new_optimizer(model, config))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(config, step))
    run = Run(config, accelerator, model, tokenizer, encoder, optimizer, scheduler, batches, held_out)
    return run.loop()


def build_model(config: TrainingConfig, encoder: SentenceEncoder):
    """The inverter that a run starts from, and its tokenizer."""
    if config.max_sequence_length > encoder.config.max_length:
        raise ValueError(
            f"{encoder.config.id} is set to read {encoder.config.max_length} tokens (max_length in its YAML), "
            f"the canvas has {config.max_sequence_length}."
        )
    if config.init_from is not None:
        model, tokenizer = load_inverter(config.init_from, attn_implementation=config.attn_implementation)
        adopt_encoder(model, tokenizer, encoder)
        model.config.max_sequence_length = config.max_sequence_length
        # noise of another kind than it knows would be a change that nobody asked for
        config.noise_schedule, config.noise_lambda = model.config.noise_schedule, model.config.noise_lambda
    else:
        tokenizer = prepare_tokenizer(encoder.tokenizer)
        backbone = json.loads(config.backbone_config) if config.backbone_config else config.backbone
        model = new_inverter(
            tokenizer,
            encoder.path if backbone == "encoder" else packaged_folder(backbone) or backbone,
            config.num_hidden_layers,
            embedding_dim=encoder.embedding_dim,
            max_sequence_length=config.max_sequence_length,
            num_condition_tokens=config.num_condition_tokens,
            noise_schedule=config.noise_schedule,
            noise_lambda=config.noise_lambda,
            encoder_id=encoder.config.id,
            encoder_revision=encoder.config.revision,
            encoder_prompt=encoder.config.prompt,
            attn_implementation=config.attn_implementation,
        )
    if config.hypothesis_share:
        if not encoder.can_encode:
            raise ValueError("hypothesis_share needs an encoder that can be called: hypotheses are embedded.")
        model.add_correction()
    if config.freeze_backbone:
        model.freeze_backbone()
    if config.embedding_rate == 0:
        model.get_input_embeddings().requires_grad_(False)
    return model.train(), tokenizer


def build_data(config: TrainingConfig, encoder: SentenceEncoder, model: EmbInvForMaskedDiffusion):
    """Training batches and the validation set: from prepared pairs, or spans that are embedded as training goes."""
    end = model.config.eos_token_id
    if config.pairs is not None:
        _check_manifest(read_manifest(config.pairs), config, encoder)
        batches = PairBatches(load_pairs(config.pairs, "train"), end, config.seed)
        ids, embedding = held_out_pairs(config.pairs, end, config.max_sequence_length, config.validation_size)
    else:
        cache = config.token_cache
        samplers = []
        for split in ("train", "validation"):
            documents = read_texts(config.texts, column=config.text_column)
            corpus = TokenizedCorpus.build(documents, encoder.tokenizer, cache, split)
            samplers.append(
                SpanSampler(corpus, config.max_sequence_length, config.seed, whole_share=config.whole_share)
            )
        batches = SpanBatches(samplers[0], encoder, end)
        ids, embedding = SpanBatches(samplers[1], encoder, end).batch(0, config.validation_size)
    return batches, ValidationSet(ids, embedding, config.generation_size, schedule_of(config))


def learning_rate_factor(config: TrainingConfig, step: int) -> float:
    """Linear warm-up to 1, then constant or a cosine down to 0 at max_steps."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.lr_scheduler == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(config.max_steps - config.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class Run:
    """A training run: its parts, and the loop in paragraphs."""

    def __init__(self, config, accelerator, model, tokenizer, encoder, optimizer, scheduler, batches, held_out):
        self.config, self.accelerator, self.model, self.tokenizer = config, accelerator, model, tokenizer
        self.encoder, self.optimizer, self.scheduler = encoder, optimizer, scheduler
        self.batches, self.held_out = batches, held_out
        self.bare_model = accelerator.unwrap_model(model)
        self.schedule = schedule_of(config)
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
        losses, texts, since = [], 0, time.perf_counter()
        while self.progress.step < config.max_steps:
            loss, grad_norm = self.update(self.progress.step)
            losses.append(loss)
            texts += config.batch_size * config.gradient_accumulation_steps * accelerator.num_processes
            self.progress.step += 1
            bar.update()

            if self.progress.step % config.log_steps == 0:
                values = {
                    "train/loss": float(torch.stack(losses).mean()),
                    "train/grad_norm": float(grad_norm),
                    "train/learning_rate": self.scheduler.get_last_lr()[0],
                    "train/texts_per_second": texts / (time.perf_counter() - since),
                    "train/share_of_matmul_rate": self.flops / (time.perf_counter() - since) / limit,
                }
                accelerator.log(values, step=self.progress.step)
                bar.set_postfix(loss=f"{values['train/loss']:.3f}", texts_s=f"{values['train/texts_per_second']:.0f}")
                losses, texts, self.flops, since = [], 0, 0.0, time.perf_counter()
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

    def update(self, step: int) -> tuple[Tensor, Tensor]:
        """One optimizer update; returns its mean loss and gradient norm."""
        config, accelerator = self.config, self.accelerator
        canvas = canvas_length(config.canvas_lengths or [config.max_sequence_length], config.seed, step)
        total = 0.0
        for micro in range(config.gradient_accumulation_steps):
            index = step * config.gradient_accumulation_steps + micro
            index = index * accelerator.num_processes + accelerator.process_index
            with accelerator.accumulate(self.model):
                batch = self.noised_batch(index, canvas)
                loss = self.loss(batch, self.hypothesis(batch, index) if config.hypothesis_share else None)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    grad_norm = accelerator.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
            total = total + loss.detach() / config.gradient_accumulation_steps
        self.scheduler.step()
        self.ema.update()
        return total, grad_norm

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

    def hypothesis(self, batch: NoisedBatch, index: int) -> Hypothesis:
        """What the model itself makes of some of the rows; a function of its weights and (seed, index)."""
        device = self.accelerator.device
        # generation has batches of every size, see `validate`
        with torch.compiler.set_stance("force_eager"), self.accelerator.autocast():
            found = sample_hypotheses(
                self.bare_model, self.encoder, batch.input_ids, batch.embedding, self.config.hypothesis_share,
                generator_for(self.config.seed, index, 2),
            )  # fmt: skip
        mask = found.mask & batch.condition_mask
        return Hypothesis(found.ids.to(device), found.embedding.to(device), mask.to(device))

    def loss(self, batch: NoisedBatch, hypothesis: Hypothesis | None = None) -> Tensor:
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
            hypothesis=hypothesis,
        ).loss

    def validate(self):
        """Log held-out scores of the averaged weights, and keep the best of them."""
        model = self.bare_model.eval()
        # generation has batches of every size: compiling for each would take longer than running them
        with self.ema.applied(), torch.compiler.set_stance("force_eager"):
            scores = masked_scores(model, self.held_out)
            generated, samples = generation_scores(model, self.tokenizer, self.encoder, self.held_out)
        model.train()
        scores |= generated
        self.accelerator.log({f"validation/{name}": value for name, value in scores.items()}, step=self.progress.step)
        if self.accelerator.is_main_process:
            line = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
            texts = "".join(f"\n    {original}\n  → {recovered}" for original, recovered in samples[:4])
            tqdm.write(f"step {self.progress.step}: {line}{texts}")
        if scores["loss"] < self.progress.best:
            self.progress.best = scores["loss"]
            self.export("best")

    def export(self, name: str) -> Path:
        """Write the averaged weights as a folder that `AutoModel` loads."""
        with self.ema.applied():
            state_dict = self.accelerator.get_state_dict(self.model)
            if self.accelerator.is_main_process:
                export(self.bare_model, self.tokenizer, self.folder / name, state_dict)
        self.accelerator.wait_for_everyone()
        return self.folder / name


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


def schedule_of(config: TrainingConfig) -> NoiseSchedule:
    if config.mask_ratio is not None:
        return NoiseSchedule("fixed", mask_ratio=config.mask_ratio)
    return NoiseSchedule(config.noise_schedule, config.noise_lambda)


def _check_manifest(manifest: dict, config: TrainingConfig, encoder: SentenceEncoder):
    if manifest["length"] < config.max_sequence_length:
        found, wanted = manifest["length"], config.max_sequence_length
        raise ValueError(f"{config.pairs} was prepared with length {found}, this run wants {wanted}.")
    wanted = {f"encoder_{key}": getattr(encoder.config, key) for key in ("id", "revision", "prompt", "task")}
    for name, value in wanted.items():
        if manifest[name] != value:
            raise ValueError(f"{config.pairs} was prepared with {name} {manifest[name]}, this run wants {value}.")


def _plain(config: TrainingConfig) -> dict:
    """Settings as values that every tracker takes."""
    values = dataclasses.asdict(config)
    values = {key: json.dumps(value) if isinstance(value, list) else value for key, value in values.items()}
    return {key: value for key, value in values.items() if value is not None}
