"""Training runs of a tiny model, shared by the tests of training, checkpoints and fine-tuning."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import PartialState, debug_launcher
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from modeling_embinv.training.assemble import train
from modeling_embinv.training.backbone import prepare_tokenizer
from modeling_embinv.training.config import TrainingConfig
from modeling_embinv.training.loop import Run

ROOT = Path(__file__).parents[2]
TINY_TRUNK = dict(
    model_type="bert", hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=40,
)  # fmt: skip

SENTENCES = [
    "The cat sat on the mat.", "Rain fell all night.", "He lost his keys again.", "Two trains left early.",
    "Our teacher likes old maps.", "Please close the window.", "The soup is too hot to eat.", "Nobody saw the thief.",
]  # fmt: skip


def small_tokenizer(encoder) -> PreTrainedTokenizerBase:
    """An inverter's tokenizer that knows the words of `SENTENCES`: a hundredth of the logits of the encoder's own."""
    return prepare_tokenizer(encoder.tokenizer.train_new_from_iterator(SENTENCES, 300, show_progress=False))


def settings(prepared: Path, output_dir: Path, **overrides) -> TrainingConfig:
    values = dict(
        output_dir=str(output_dir), encoder="minilm", pairs=str(prepared),
        backbone_config=json.dumps(TINY_TRUNK), max_sequence_length=16, batch_size=4, max_steps=6, warmup_steps=2,
        learning_rate=1e-3, lr_scheduler="constant", log_steps=1, eval_steps=100, save_steps=3, validation_size=4,
        generation_size=2, seed=1, full_mask_share=0.1, canvas_lengths=[8, 16],
        mixed_precision="float32",  # the same on every machine
    )  # fmt: skip
    return TrainingConfig(**{**values, **overrides})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def log(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "train/grad_norm" in line]


def in_two_forks(config: TrainingConfig):
    """Train in two processes, forked from this one so that they need not import anything.

    Each writes the message of a ValueError that ended it to a file in the run's folder; any other error raises here.
    """
    debug_launcher(_train, (config,), num_processes=2)


def _train(config: TrainingConfig):
    os.environ["OMP_NUM_THREADS"] = "1"  # or accelerate chooses, and says so
    torch.set_num_threads(1)
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()  # this process' own, which says that it is alone
    try:
        train(config)
    except ValueError as error:
        Path(config.output_dir, f"{os.getpid()}.error").write_text(str(error))


@contextmanager
def killed_at(step: int) -> Iterator[pytest.ExceptionInfo]:
    """Ctrl-C ends the training in this block before the update of that number, which it must reach."""
    update = Run.update

    def killed(self, number, kind="masked"):
        if number == step:
            raise KeyboardInterrupt
        return update(self, number, kind)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt) as caught:
        patch.setattr(Run, "update", killed)
        yield caught


def in_two_processes(config: TrainingConfig, file: Path) -> subprocess.CompletedProcess:
    """Train by the launch in two processes that the docs print; its output, whether it succeeded or not."""
    file.write_text(yaml.safe_dump({key: value for key, value in vars(config).items() if value is not None}))
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    printed = re.search(r"^torchrun (.* --nproc_per_node 2) train\.py ", page, flags=re.MULTILINE)
    assert printed is not None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *printed[1].split(), str(ROOT / "train.py"), str(file)],
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, timeout=600, capture_output=True,
        text=True,
    )  # fmt: skip
