"""How the cost of inversion and training grows with batch, length, vocabulary and passes, one of them at a time.

    python benchmarks/growth.py --json growth.json     # about 5 minutes on two cores

Random weights of MiniLM's shape, which hardly ever write an end token: every pass sees full rows. The limit is that of
benchmarks/throughput.py, the same matrix products alone.
"""

import argparse

from result_file import result_file
from throughput import TrainingStep, build_model, inversion, measure
from throughput import parse as parse_throughput

from modeling_embinv.data.files import write_json
from modeling_embinv.evaluation.report import markdown_table
from modeling_embinv.runtime import keep_large_blocks

# the usual value of each, from which one at a time departs
USUAL = {"batch": 8, "length": 32, "vocabulary": 30_522, "passes": 8}
VALUES = {
    "batch": (1, 8, 64),
    "length": (16, 32, 64, 128),
    "vocabulary": (8_000, 30_522, 151_936),
    "passes": (1, 4, 8, 16, 32),
}
FLAGS = {"length": "--length", "vocabulary": "--vocab_size", "passes": "--steps"}


def settings() -> list[dict[str, int]]:
    """The usual setting and its neighbours, each once."""
    found = [USUAL | {name: value} for name, values in VALUES.items() for value in values]
    return [setting for place, setting in enumerate(found) if setting not in found[:place]]


def measure_at(setting: dict[str, int], flags: list[str]) -> list[dict]:
    """A row for inversion, and one for a training step where the number of passes is the usual one: it has none."""
    wanted = [str(word) for name, flag in FLAGS.items() for word in (flag, setting[name])]
    args = parse_throughput([*wanted, *flags])
    model = build_model(args).to(args.dtype).eval()
    calls = {"inversion": inversion(model, setting["batch"], args)}
    if setting["passes"] == USUAL["passes"]:
        args.train_batch_size = setting["batch"]
        calls["training"] = TrainingStep(args)
    rows = [{**setting, **measure(what, setting["batch"], call, args)} for what, call in calls.items()]
    for row in rows:
        del row["products"]
    return rows


def table(rows: list[dict]) -> str:
    """Markdown: what varies, and what a text costs then."""
    kinds, units = ("inversion", "training"), ("GFLOP a text", "ms a text", "of the limit")
    lines = [["", "", *(f"{kind}, {unit}" for kind in kinds for unit in units)]]
    at = {(row["what"], *(row[name] for name in USUAL)): row for row in rows}
    for name, values in VALUES.items():
        for value in values:
            place = tuple((USUAL | {name: value}).values())
            cost = [text for kind in kinds for text in _cost(at.get((kind, *place)))]
            lines.append([name, f"{value:,}", *cost])
    return markdown_table(lines)


def _cost(row: dict | None) -> list[str]:
    if row is None:
        return ["—"] * 3
    milliseconds = row["ms"] / row["batch_size"]
    return [f"{row['gflop_per_sequence']:.1f}", f"{milliseconds:,.1f}", f"{row['share_of_limit']:.0%}"]


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=result_file, help="write the results there")
    parser.add_argument("--seconds", default="6", help="of measuring a row")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options = parser.parse_args(arguments)
    keep_large_blocks()
    flags, rows = ["--seconds", options.seconds, "--device", options.device], []
    for setting in settings():
        found = measure_at(setting, flags)
        rows += found
        for row in found:
            print(" ".join(f"{name} {row[name]}" for name in ("what", *USUAL)), *_cost(row), flush=True)
    result = {"rows": rows, "table": table(rows)}
    print(result["table"])
    if options.json:
        write_json(options.json, result)
    return result


if __name__ == "__main__":
    main()
