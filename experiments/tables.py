"""Tables in Markdown from the JSON of results: the shape of the JSON says which."""

from measured import find, row_scores

from modeling_embinv.evaluation.held_out import Score
from modeling_embinv.evaluation.report import COLUMNS, cells, markdown_table

COST = {"passes": "passes", "encoder_calls": "encoder calls", "surrogate_calls": "surrogate calls", "gflop": "GFLOP"}


def table(entry: dict) -> str:
    """The table of an entry of figures.yaml.

    Args:
        entry: `of`, the path of its results, or `rows`, a path for each label. Optional: `only`, the names of the rows
            shown; `columns`, the scores shown; `sections` of an evaluation; `where`, cells that a printed table's rows
            have; `part` of a printed table; `paper` and `heading`, the paper's figures by row; `methods`, true where
            every row has scores of several.
    """
    if "of" not in entry:
        return _markdown(_picked(entry), entry)
    results = find(entry["of"])
    if isinstance(results, dict) and "table" in results:  # a benchmark's, as it printed it
        return markdown_table(_printed(results["table"], entry))
    if isinstance(results, dict) and "columns" in results:
        return _markdown(_score_lines(results, entry), entry)
    rows = results["rows"] if "rows" in results else results  # noqa: SIM401 – it may be a list
    if entry.get("methods"):
        return _markdown(_pilot_lines(rows), entry)
    return _markdown(_report_lines(rows, entry) if isinstance(rows, list) else _method_lines(rows, entry), entry)


def _picked(entry: dict) -> list[list[str]]:
    """Rows of several files under one head."""
    lines = [["", "texts", *entry["columns"]]]
    for label, path in entry["rows"].items():
        row = find(path)
        lines.append([label, str(row["texts"]), *cells(row_scores(row), entry["columns"])])
    return lines


def _method_lines(rows: dict[str, dict], entry: dict) -> list[list[str]]:
    """Trained variants with their losses, or methods with what a text costs; and their scores."""
    rows = {name: rows[name] for name in entry.get("only", rows)}
    first = next(iter(rows.values()))
    shares = list(first.get("losses", ()))
    names = entry.get("columns", COLUMNS)
    columns = [name for name in names if all(name in row["scores"] for row in rows.values())]
    costs = ["TFLOP", *(f"loss at {share}" for share in shares)] if shares else [*COST.values(), "seconds"]
    lines = [["", *costs, *columns]]
    for name, row in rows.items():
        if shares:
            cost = [f"{row['teraflop']:.0f}", *(f"{row['losses'][share]:.2f}" for share in shares)]
        else:
            cost = [*(f"{row[kind]:.0f}" for kind in COST), f"{row['seconds']:.2g}"]
        lines.append([name, *cost, *cells(row_scores(row), columns)])
    return lines


def _pilot_lines(rows: dict[str, dict]) -> list[list[str]]:
    """Trained variants, with a line for each way of writing."""
    measures = ["BLEU", "token F1", "cosine"]
    lines = [["trained", "updates, causal", "masked losses", "causal loss", "written", *measures]]
    for variant, row in rows.items():
        losses = dict(row["losses"])
        causal = losses.pop("left to right", None)
        masked = " / ".join(f"{loss:.2f}" for loss in losses.values())
        known = [f"{row['updates']}, {row['causal_updates']}", masked, "" if causal is None else f"{causal:.2f}"]
        first = [variant, *known]
        for method, scores in row["scores"].items():
            lines.append([*first, method, *cells(row_scores({"scores": scores}), measures)])
            first = [""] * len(first)
    return lines


def _report_lines(rows: list[dict], entry: dict) -> list[list[str]]:
    """Rows of an `embinv evaluate` report: inversions and floors, or those of the sections named."""
    sections = entry.get("sections", ["inversion", "floor"])
    rows = [row for row in rows if row["section"] in sections]
    columns = entry.get("columns", [name for name in COLUMNS if name in rows[0]["scores"]])
    passes = ["passes"] if any(row["num_forward_passes"] for row in rows) else []
    lines = [["", "texts", *passes, *columns]]
    for row in rows:
        cost = [str(row["num_forward_passes"] or "") for _ in passes]
        lines.append([row["name"], str(row["texts"]), *cost, *cells(row_scores(row), columns)])
    return lines


def _score_lines(results: dict, entry: dict) -> list[list[str]]:
    """Scores of any kind with their intervals, and plain numbers; a row may lack one."""
    columns, digits = results["columns"], results.get("digits", 2)

    def cell(column: str, value: object) -> str:
        if value is None:
            return ""
        if isinstance(value, dict):
            return Score(**value).shown(max(digits, 2) if column == "cosine" else digits)
        return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"

    lines = [[name, *(cell(column, row.get(column)) for column in columns)] for name, row in results["rows"].items()]
    return [["", *columns], *lines]


def _printed(text: str, entry: dict) -> list[list[str]]:
    """A benchmark's table, or those of its rows that `where` names."""
    lines = text.split("\n\n")[entry.get("part", 0)].splitlines()
    head, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    for column, wanted in entry.get("where", {}).items():
        body = [line for line in body if line[head.index(column)] in wanted]
    return [head, *body]


def _markdown(lines: list[list[str]], entry: dict) -> str:
    """A table with the units in its head, and the paper's column at its end where there is one."""
    head, *body = lines
    head = [f"{name} %" if name in ("token accuracy", "token F1", "ROUGE-L", "exact") else name for name in head]
    if "paper" in entry:
        head = [*head, entry["heading"]]
        body = [[*line, entry["paper"].get(line[0], "")] for line in body]
    return markdown_table([head, *body])
