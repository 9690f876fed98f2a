"""The training loop: updates, logs, validations, checkpoints."""

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..data.batches import Batches
from ..data.encoders import Encoder
from ..data.noise import Noise, UpdateKind, canvas_length, kind_of_update
from ..errors_embinv import EmbInvError
from ..modeling_embinv import EmbInvForMaskedDiffusion
from .batch_losses import BatchLosses
from .checkpoints import EMA, Progress, checkpoints, export, in_all, is_exported, load_newest, save_checkpoint
from .config import TrainingConfig
from .flops import matmul_rate
from .kept_surrogate import KeptSurrogate
from .machine import dtype_of
from .pace import Pace
from .run_data import encoder_settings
from .run_settings import changes, read_settings, refuse_other_sources, write_settings
from .validation import ValidationSet, all_scores

# updates after which an accelerator is asked whether all losses were finite: reading one means waiting for it
CHECKED_UPDATES = 20


class Run(BatchLosses):
    """A training run: its parts, and the loop in paragraphs; `BatchLosses` has what an update learns from.

    Args:
        config: the settings of the loop.
        accelerator: devices and processes; it has prepared the model and the optimizers.
        model: the inverter, as the accelerator has wrapped it.
        tokenizer: exported with the model.
        encoder: measures what validation generates.
        optimizers, schedulers: in the same order; a checkpoint holds them in this order, too.
        batches: originals and their vectors.
        held_out: what validation sees.
        kept: a surrogate that is exported as it was, whatever the trunk has become.
    """

    def __init__(
        self,
        config: TrainingConfig,
        *,
        accelerator: Accelerator,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        encoder: Encoder,
        optimizers: Sequence[Optimizer],
        schedulers: Sequence[LRScheduler],
        batches: Batches,
        held_out: ValidationSet,
        kept: KeptSurrogate | None = None,
    ) -> None:
        self.config, self.accelerator, self.model, self.tokenizer = config, accelerator, model, tokenizer
        self.encoder, self.optimizers, self.schedulers = encoder, optimizers, schedulers
        self.batches, self.held_out, self.kept = batches, held_out, kept
        self.bare_model: EmbInvForMaskedDiffusion = accelerator.unwrap_model(model)
        self.noise: Noise = config.noise_of(self.bare_model)
        self.ema = EMA(self.bare_model, config.ema_decay)
        self.progress = Progress(held_out.digest(*config.shares), encoder_settings(encoder))
        self.losses: dict[str, list[Tensor]] = defaultdict(list)  # of the updates since the last log line, by kind
        self.unchecked: list[Tensor] = []  # of the updates since `stop_if_diverged`; not finite if a gradient was not
        self.texts, self.flops, self.since = 0, 0.0, time.perf_counter()  # since the last log line
        self.folder = Path(config.output_dir)
        self.replaced: list[Path] = []  # checkpoints of a run that is started over
        self.are_settings_noted = False
        accelerator.register_for_checkpointing(*self.schedulers, self.ema, self.progress)

    def loop(self) -> Path:
        """Train from the newest checkpoint, or from the start; returns the folder of the last export."""
        config, accelerator, progress = self.config, self.accelerator, self.progress
        before = gather_object([read_settings(self.folder)])[0]  # the main process' file counts for all
        if config.resume:
            self.resume()
        else:
            self.replaced = checkpoints(self.folder)
        changed = changes(before, config) if progress.step else {}
        is_finished = progress.step >= config.max_steps and self.is_exported("last")
        if is_finished:
            refuse_other_sources(self.folder, progress.step, changed)
        if changed:
            accelerator.print(f"settings that differ from before: {'; '.join(changed.values())}")
        if is_finished:
            accelerator.print(f"finished at step {progress.step}: {self.folder / 'last'} stays as it is")
            return self.folder / "last"
        if not (progress.step or self.replaced):
            self.note_settings()
        dtype = dtype_of(accelerator.mixed_precision)
        limit = matmul_rate(accelerator.device, dtype)
        accelerator.print(f"matrix products on this device: {limit / 1e12:.2f} TFLOP/s in {dtype}")
        with tqdm(
            total=config.max_steps, initial=progress.step, desc="training", unit="step", mininterval=10,
            disable=not accelerator.is_main_process,
        ) as bar:  # fmt: skip
            self.updates(bar, limit)
        last = self.export("last")
        best = f"{self.folder / 'best'} has the lowest validation loss, {progress.best:.4g}"
        accelerator.print(f"saved: {best}; {last} is of update {progress.step:,}")
        return last

    def updates(self, bar: "tqdm[NoReturn]", limit: float) -> None:
        """All updates that are left to do, and what is due between them."""
        config, accelerator, progress = self.config, self.accelerator, self.progress
        check_steps = 1 if accelerator.device.type == "cpu" else CHECKED_UPDATES
        if progress.is_validation_due:  # a kill came before its scores
            self.keep(bar, validates=True, saves=True)
        self.since = time.perf_counter()
        pace = Pace(config.max_steps, tqdm.write if accelerator.is_main_process else None)
        while progress.step < config.max_steps:
            kind = kind_of_update(*config.shares, config.seed, progress.step)
            loss, grad_norm = self.update(progress.step, kind)
            progress.step += 1
            self.losses["train/loss" if kind == "masked" else f"train/loss_{kind}"].append(loss)
            # float16 scales its losses, and skips an update whose gradient overflows
            self.unchecked.append(loss if accelerator.scaler else loss + 0 * grad_norm)
            has_noise = kind == "masked" and not config.is_part
            texts = self.noise.texts_of(config.batch_size) if has_noise else config.batch_size
            self.texts += texts * config.gradient_accumulation_steps * accelerator.num_processes
            bar.update()
            if not pace.is_said:  # `done_once` may look at many files
                pace.note(progress.step, *self.done_once())
            kept = (config.log_steps, config.eval_steps, config.save_steps, config.max_steps)
            logs, validates, saves, is_last = (progress.step % steps == 0 for steps in kept)
            if logs or validates or saves or is_last or progress.step % check_steps == 0:
                self.stop_if_diverged()
            if logs:
                self.log(grad_norm, limit, bar)
            paused = time.perf_counter()
            self.keep(bar, validates or is_last, saves or is_last)
            paused = time.perf_counter() - paused
            self.since += paused
            pace.pause(paused)

    def done_once(self) -> tuple[float, float | None]:
        """Seconds of work that is done once for many updates: those so far, and those to come (None = unknown)."""
        return 0.0, 0.0

    def keep(self, bar: "tqdm[NoReturn]", validates: bool, saves: bool) -> None:
        """Save and validate, where each is due. A kill in a validation loses no update: it is saved before, too."""
        self.progress.is_validation_due = validates
        if saves:
            self.save()
        if validates:
            bar.set_description("validating")
            self.validate()
            bar.set_description("training")
            self.progress.is_validation_due = False
            if saves:
                self.save()

    def save(self) -> None:
        """Write a checkpoint; with the first one, those of a run that is started over go."""
        step, count = self.progress.step, self.config.keep_checkpoints
        save_checkpoint(self.accelerator, self.folder, step, count, self.replaced)
        self.replaced = []
        self.note_settings()

    def note_settings(self) -> None:
        """Write the settings into the run's folder, once: at a new start, else with the first checkpoint from here."""
        is_due = self.accelerator.is_main_process and not self.are_settings_noted
        in_all(self.accelerator, lambda: write_settings(self.folder, self.config) if is_due else None)
        self.are_settings_noted = True

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one, with the rates and micro-batches of these settings.

        Raises:
            EmbInvError: for a checkpoint of another encoder, or with other frozen weights.
            OSError: for one that cannot be read.
        """
        given = [
            (scheduler.base_lrs, [group["weight_decay"] for group in optimizer.param_groups])
            for scheduler, optimizer in zip(self.schedulers, self.optimizers, strict=True)
        ]
        loaded = load_newest(self.accelerator, self.folder, self.bare_model)
        if loaded is None:
            return
        if not (self.folder / "best").is_dir():  # copied from another folder, whose best model lies there
            self.progress.best = float("inf")
        goes_on = self.progress.step < self.config.max_steps
        if not self.progress.check(loaded) and goes_on:
            self.progress.best = float("inf")
            self.accelerator.print(
                "best is chosen anew: the best loss so far is of other held-out texts, other noise or another order"
            )
        # a checkpoint holds those of the run that wrote it, too
        self.accelerator.step = self.progress.step * self.config.gradient_accumulation_steps
        factor = self.config.rates().factor(self.progress.step)
        for scheduler, optimizer, (rates, decays) in zip(self.schedulers, self.optimizers, given, strict=True):
            scheduler.base_lrs = rates
            for group, rate, decay in zip(optimizer.param_groups, rates, decays, strict=True):
                group |= {"lr": rate * factor, "initial_lr": rate, "weight_decay": decay}
        if goes_on:
            self.accelerator.print(f"continuing from {loaded}")

    def stop_if_diverged(self) -> None:
        """Stop before anything is kept of weights that are lost.

        Raises:
            EmbInvError: in every process, naming the first update whose loss or gradient is not finite in any.
        """
        lost = self.accelerator.reduce((~torch.stack(self.unchecked).isfinite()).float(), reduction="sum")
        if lost.any():
            self.accelerator.wait_for_everyone()  # as in `in_all`
            first = self.progress.step - len(lost) + 1 + int(lost.nonzero()[0])
            raise EmbInvError(
                f"update {first}: the loss or its gradient is not finite, so training stops. The checkpoints in "
                f"{self.folder} are as they were; try a lower learning_rate."
            )
        self.unchecked.clear()

    def log(self, grad_norm: Tensor, limit: float, bar: "tqdm[NoReturn]") -> None:
        """A log line of the updates since the last one: the mean loss of all processes, and the speed."""
        own = {name: torch.stack(losses).mean() for name, losses in self.losses.items()}
        means = {name: float(self.accelerator.reduce(mean, reduction="mean")) for name, mean in own.items()}
        seconds = time.perf_counter() - self.since
        values = {
            **means,
            "train/grad_norm": float(grad_norm),
            "train/learning_rate": self.schedulers[0].get_last_lr()[0],
            "train/texts_per_second": self.texts / seconds,
            "train/share_of_matmul_rate": self.flops / seconds / limit,
        }
        self.accelerator.log(values, step=self.progress.step)
        shown = {name.removeprefix("train/"): f"{mean:.3f}" for name, mean in means.items()}
        bar.set_postfix(shown, texts_s=f"{values['train/texts_per_second']:.0f}")
        self.losses.clear()
        self.texts, self.flops, self.since = 0, 0.0, time.perf_counter()

    def update(self, step: int, kind: UpdateKind = "masked") -> tuple[Tensor, Tensor]:
        """One optimizer update.

        Returns:
            This process' part of its loss, and the gradient norm of all.
        """
        config, accelerator = self.config, self.accelerator
        canvas = canvas_length(config.canvases, config.seed, step)
        micros = range(step * config.gradient_accumulation_steps, (step + 1) * config.gradient_accumulation_steps)
        indexes = [micro * accelerator.num_processes + accelerator.process_index for micro in micros]
        total = torch.zeros((), device=accelerator.device)
        for micro_loss in self.micro_losses(indexes, canvas, kind):
            with accelerator.accumulate(self.model):
                loss = micro_loss()
                self.backward(loss)
                if accelerator.sync_gradients:
                    grad_norm = accelerator.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
            total = total + loss.detach() / config.gradient_accumulation_steps
        for scheduler in self.schedulers:
            scheduler.step()
        self.ema.update()
        return total, _whole(grad_norm)

    def backward(self, loss: Tensor) -> None:
        """Add a micro-batch's gradients."""
        self.accelerator.backward(loss)

    def validate(self) -> None:
        """Log held-out scores of the averaged weights, and keep the best of them."""
        model = self.bare_model.eval()  # type: ignore[no-untyped-call]  # transformers left it without types
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
        parts = self.bare_model, self.tokenizer, self.encoder, self.held_out
        return all_scores(*parts, *self.config.shares)

    def is_exported(self, name: str) -> bool:
        """Whether the folder of that name holds the averaged weights already."""
        folder, is_main = self.folder / name, self.accelerator.is_main_process
        with self.ema.applied():
            state_dict = self.accelerator.get_state_dict(self.model)
            same = is_main and is_exported(folder, state_dict, self.kept.names if self.kept else ())
            found = torch.tensor(float(same), device=self.accelerator.device)
        return bool(self.accelerator.reduce(found, reduction="sum"))

    def export(self, name: str) -> Path:
        """Write the averaged weights as a folder that `AutoModel` loads."""
        with self.ema.applied():
            state_dict = self.accelerator.get_state_dict(self.model)
            is_main, folder = self.accelerator.is_main_process, self.folder / name
            if is_main and self.kept:
                state_dict |= self.kept.changes(state_dict)
            in_all(
                self.accelerator,
                lambda: export(self.bare_model, self.tokenizer, folder, state_dict) if is_main else None,
            )
        return folder


def _whole(value: Tensor | None) -> Tensor:
    """A gradient norm as a plain number: sharding keeps it in parts, DeepSpeed has none before its first update."""
    if value is None:
        return torch.zeros(())
    return torch.as_tensor(value.full_tensor() if hasattr(value, "full_tensor") else value)
