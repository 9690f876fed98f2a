"""Training runs on a pretended accelerator, with an encoder whose vectors lie there.

`main` trains in a process of its own and returns what was scored: run → scores, or the error that ended it.
"""

import json
import os
from pathlib import Path

import torch

from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import SentenceEncoder, load_encoder
from modeling_embinv.training import assemble, distillation, loop
from modeling_embinv.training.backbone import prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from tests.hub.tiny_folder import new_tiny_inverter
from tests.training.tiny_runs import settings

CAUSAL = {"causal_share": 0.4, "num_condition_tokens": 2}
PART = {"backbone_config": None, "canvas_lengths": None, "init_from": "start"}
# settings of each; "start" stands for a folder with an inverter, "text" for a file
RUNS = {
    "pairs": {**CAUSAL, "draft_share": 0.3, "loss_weight": "none"},
    "texts": {**CAUSAL, "correction_share": 0.4, "pairs": None, "texts": "text"},
    "surrogate": {**PART, "surrogate_rank": 4, "pairs": None, "texts": "text"},
    "words": {**PART, "word_head_size": 8},
}
SEED, STEPS = 6, 3  # an update of each kind


def main(pairs: str, folder: str) -> dict[str, dict[str, float] | str]:
    """The last scores of each run, or its error."""
    work = Path(folder)
    encoder = load_encoder(EncoderConfig(id="sentence-transformers/all-MiniLM-L6-v2"))
    of_encoder = {"encoder_id": encoder.config.id, "embedding_dim": 384, "max_sequence_length": 16}
    start = export(
        new_tiny_inverter(encoder.tokenizer, **of_encoder), prepare_tokenizer(encoder.tokenizer), work / "start"
    )
    text = work / "text.txt"
    text.write_text("".join(f"Ship number {i} sailed to the harbour with {i * 3} crates.\n" for i in range(300)))
    from tests.accelerator import DEVICE, Accelerator, Far, moved

    def encode_ids(self: SentenceEncoder, ids: torch.Tensor) -> torch.Tensor:
        """As the encoder on that device: it takes ids from anywhere, and leaves its vectors there."""
        return Far(by_cpu(self, ids.cpu()))

    by_cpu, SentenceEncoder.encode_ids = SentenceEncoder.encode_ids, encode_ids
    assemble.load_encoder = lambda *_, **__: encoder
    distillation.RANKED_VECTORS = distillation.RANKED_TEXTS = 4
    # safetensors reads memory past all that Python can watch, so nothing is saved
    loop.save_checkpoint, loop.Run.export = lambda *_: None, lambda *_: work
    to = torch.nn.Module.to
    torch.nn.Module.to = lambda self, *args, **named: moved(self) if args == (DEVICE,) else to(self, *args, **named)
    os.environ["ACCELERATE_TORCH_DEVICE"] = str(DEVICE)
    given, found = {"start": str(start), "text": [str(text)]}, {}
    for name, flags in RUNS.items():
        flags = {flag: given.get(value, value) if isinstance(value, str) else value for flag, value in flags.items()}
        output = work / name
        try:
            with Accelerator():
                assemble.train(settings(Path(pairs), output, max_steps=STEPS, seed=SEED, **flags))
            found[name] = json.loads((output / "log.jsonl").read_text().splitlines()[-1])
        except RuntimeError as error:
            found[name] = str(error)
    return found
