"""Quality against cost of closing the loop: every method of quality_cost.yaml on the same held-out texts.

    python experiments/quality_cost.py                  # goes on where it was
    python experiments/quality_cost.py --only "4 beams"

Writes `results/quality_cost.json` and the plot `docs/images/quality_cost.png`.
"""

import argparse
import copy
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.settings import load_yaml
from modeling_embinv.data.tokens import tokenize
from modeling_embinv.evaluation.held_out import HeldOut
from modeling_embinv.loading import load_inverter
from modeling_embinv.runtime import keep_large_blocks
from modeling_embinv.training.flops import operation_counter

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "quality_cost.json"
PLOT = FOLDER.parent / "docs" / "images" / "quality_cost.png"
# operations are counted on so few texts, off the clock
COUNTED = 8


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="names of methods; all that are missing by default")
    options = parser.parse_args(arguments)
    experiment = load_yaml(FOLDER / "quality_cost.yaml")
    every = experiment["methods"] | experiment["ablations"]
    if unknown := set(options.only or ()) - set(every):
        parser.error(f"no method {', '.join(unknown)}; there are {', '.join(every)}")
    keep_large_blocks()
    model, tokenizer = load_inverter(experiment["model"])
    model.eval().requires_grad_(False)  # the counter of operations trips over views of weights that need gradients
    encoder = load_encoder(EncoderConfig.of_inverter(model.config))
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for place, (length, (fewest, most)) in enumerate(experiment["lengths"].items()):
        if most >= model.config.max_sequence_length:
            continue
        texts = held_out_texts(experiment, encoder.tokenizer, fewest, most)
        held_out, _ = HeldOut.of_texts(model, tokenizer, encoder, texts)
        rows = found.setdefault(length, {})
        for name, settings in (every if place == 0 else experiment["methods"]).items():
            if name in options.only if options.only else name not in rows:
                rows[name] = measure(held_out, settings)
                print(length, name, json.dumps(summary(rows[name])), flush=True)
                write_json(RESULTS, found)
    found = {length: {name: rows[name] for name in every if name in rows} for length, rows in found.items()}
    write_json(RESULTS, found)
    plot(found, PLOT)
    return 0


def held_out_texts(experiment: dict, tokenizer, fewest: int, most: int) -> list[str]:
    """The first texts of each part that have `fewest` to `most` tokens."""
    texts = []
    for part in experiment["parts"]:
        lines = (Path(experiment["held_out"]) / f"{part}.txt").read_text(encoding="utf-8").splitlines()
        lengths = map(len, tokenize(tokenizer, lines))
        fitting = [line for line, length in zip(lines, lengths, strict=True) if fewest <= length <= most]
        texts += fitting[: experiment["texts_a_part"]]
    return texts


def measure(held_out: HeldOut, settings: dict) -> dict:
    """Scores with intervals, and what a text costs.

    Among the settings may stand `int8`, for a copy in int8, and `threads` in place of the environment's.
    """
    settings, usual = dict(settings), torch.get_num_threads()
    computing, threads = copy.copy(held_out), settings.pop("threads", usual)
    if settings.pop("int8", False):
        computing.model = copy.deepcopy(held_out.model).to_int8()
    torch.set_num_threads(threads)
    recovered = computing.invert(**settings)
    torch.set_num_threads(usual)
    return {
        "texts": len(held_out.texts),
        "passes": recovered.num_forward_passes,
        "encoder_calls": recovered.feedback_calls,
        "surrogate_calls": recovered.surrogate_calls,
        "gflop": operations(held_out, settings) / 1e9,
        "seconds": recovered.seconds / len(held_out.texts),
        "threads": threads,
        "scores": {name: asdict(score) for name, score in held_out.measure(recovered).scores().items()},
    }


def operations(held_out: HeldOut, settings: dict) -> float:
    """Operations of a text, the encoder's included: of a few texts from all parts, in float32, which is counted."""
    index = torch.arange(0, len(held_out.texts), len(held_out.texts) // COUNTED)
    few = HeldOut(
        held_out.model, held_out.tokenizer, held_out.encoder, held_out.input_ids[index], held_out.embeddings[index],
        [held_out.texts[place] for place in index],
    )  # fmt: skip
    with operation_counter() as counter:
        few.invert(**settings)
    return counter.get_total_flops() / len(few.texts)


def summary(row: dict) -> dict:
    return {name: round(score["mean"], 2) for name, score in row["scores"].items()} | {
        name: round(row[name], 2) for name in ("encoder_calls", "surrogate_calls", "gflop", "seconds")
    }


def plot(found: dict, path: Path):
    """Scores with their intervals over operations a text."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(name for methods in found.values() for name in methods))
    palette = plt.colormaps["tab20"].colors + plt.colormaps["tab20b"].colors
    colours = {name: palette[place % len(palette)] for place, name in enumerate(names)}
    figure, axes = plt.subplots(len(found), 3, figsize=(11, 3.4 * len(found)), layout="constrained", squeeze=False)
    for row, (length, methods) in zip(axes, found.items(), strict=True):
        for panel, score in zip(row, ("BLEU", "token F1", "cosine"), strict=True):
            for name, method in methods.items():
                value = method["scores"][score]
                error = [[value["mean"] - value["low"]], [value["high"] - value["mean"]]]
                panel.errorbar(
                    method["gflop"],
                    value["mean"],
                    error,
                    fmt="o",
                    color=colours[name],
                    markersize=5,
                    capsize=2,
                    label=name,
                )
            panel.set(xscale="log", xlabel="GFLOP a text", ylabel=score, title=f"at most {length}")
    handles = {}  # a length may lack a method
    for panel in axes[:, 0]:
        handles |= {label: handle for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
