"""vec2text itself, with random weights of its published shapes, behind a line protocol; run by vs_vec2text.py.

    python benchmarks/vec2text_worker.py FOLDER --threads 2     # in vec2text's own virtual environment

Each line of standard input is a JSON object with batch_size, num_steps (0: the inverter alone) and beam; each line of
standard output the seconds, counts and peak memory of that call. FOLDER keeps the random weights.
"""

import argparse
import contextlib
import json
import os
import resource
import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

VOCABULARY = 32_128
T5_BASE = dict(
    vocab_size=VOCABULARY, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12, decoder_start_token_id=0,
)  # fmt: skip
# metrics that the trainer's constructor loads from the Hub; `generate` uses none of them
METRIC = """import datasets
import evaluate
class Unused(evaluate.Metric):
    def _info(self):
        value = datasets.Value("string")
        features = datasets.Features({"predictions": value, "references": value})
        return evaluate.MetricInfo(description="", citation="", features=features)
    def _compute(self, **_):
        return {}
"""


def write_models(folder: Path):
    """T5-base with random weights under the names that vec2text loads, and a tokenizer of its size."""
    for name in ("accuracy", "sacrebleu", "rouge"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{name}.py").write_text(METRIC)
    for name in ("t5-base", "sentence-transformers/gtr-t5-base"):
        if (folder / name / "tokenizer.json").exists():
            continue
        torch.manual_seed(0)
        T5ForConditionalGeneration(T5Config(**T5_BASE)).save_pretrained(folder / name)
        pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
        pieces += [(f"▁w{number}", -10.0) for number in range(VOCABULARY - len(pieces))]
        tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        special = dict(pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder / name)


def build(length: int):
    """vec2text's `Corrector` as its own `load_corrector` makes it."""
    import vec2text
    from vec2text.models.config import InversionConfig

    config = InversionConfig(
        model_name_or_path="./t5-base", embedder_model_name="gtr_base", embedder_torch_dtype="float32",
        embedder_model_api=None, embedder_fake_with_zeros=False, use_frozen_embeddings_as_input=True,
        encoder_dropout_disabled=False, decoder_dropout_disabled=False, embeddings_from_layer_n=None, use_lora=False,
        max_seq_length=length, num_repeat_tokens=16, embedder_no_grad=True, embedder_gaussian_noise_level=0.0,
        corrector_ignore_hypothesis_embedding=False,
    )  # fmt: skip
    inverter = vec2text.models.InversionModel(config).eval()
    corrector = vec2text.models.CorrectorEncoderModel(config).eval()
    return vec2text.load_corrector(inverter, corrector)


class Counter:
    """Texts through the encoder, and passes and rows through the decoders."""

    def __init__(self, corrector):
        self.values = {}
        inverter = corrector.inversion_trainer.model
        parts = {"encoder_calls": [inverter.embedder]}
        parts["decoder_rows"] = [model.encoder_decoder.decoder for model in (inverter, corrector.model)]
        for name, modules in parts.items():
            for module in modules:
                module.register_forward_pre_hook(self._hook(name), with_kwargs=True)

    def _hook(self, name: str):
        def count(module, args, kwargs):
            ids = kwargs.get("input_ids", args[0] if args else None)
            self.values[name] = self.values.get(name, 0) + len(ids)

        return count


def call(corrector, embeddings: torch.Tensor, num_steps: int, beam: int, length: int):
    """One inversion by vec2text's own methods; the length is what its public api hard-codes as 128."""
    corrector.return_best_hypothesis = beam > 1
    kwargs = {**corrector.gen_kwargs, "min_length": 1, "max_length": length}
    inputs = {"frozen_embeddings": embeddings}
    if num_steps == 0:
        return corrector.inversion_trainer.generate(inputs, kwargs)
    return corrector.generate(inputs, kwargs, num_recursive_steps=num_steps, sequence_beam_width=beam)


def serve(corrector, length: int, answer):
    counter = Counter(corrector)
    for line in sys.stdin:
        wanted = json.loads(line)
        embeddings = torch.randn(wanted["batch_size"], 768, generator=torch.Generator().manual_seed(0))
        embeddings /= embeddings.norm(dim=1, keepdim=True)
        counter.values = {}
        counted = FlopCounterMode(display=False) if wanted.get("count") else contextlib.nullcontext()
        start = time.perf_counter()
        with torch.no_grad(), counted:
            call(corrector, embeddings, wanted["num_steps"], wanted["beam"], length)
        result = {"seconds": time.perf_counter() - start, **counter.values}
        if wanted.get("count"):
            result["gflop"] = counted.get_total_flops() / 1e9
        result["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        answer.write(json.dumps(result) + "\n")
        answer.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--length", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # what vec2text prints must not come between the answers
    answers, sys.stdout = sys.stdout, sys.stderr
    write_models(options.folder)
    os.chdir(options.folder)
    built = build(options.length)
    answers.write(json.dumps({"ready": True}) + "\n")
    answers.flush()
    serve(built, options.length, answers)
