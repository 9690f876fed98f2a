"""`embinv fill` as a user runs it, with the released checkpoint; of few tokens, as a gap takes a second and more."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from modeling_embinv.cli import fill
from modeling_embinv.cli.main import main
from modeling_embinv.filled_embinv import VERDICTS
from modeling_embinv.gap_marks_embinv import MARKS
from modeling_embinv.inversion import fillings
from modeling_embinv.inversion.terminal import print_fillings

QUICK = ("--num-tokens", "1", "--num-proposals", "12", "--num-sweeps", "1", "--num-beams", "2")
WHOLE = ("Anna lives in Paris.", "We will meet at the station.", "The dog slept.")
REDACTED = ("<NAME> lives in Paris.", "We will meet at the ▇▇▇.", "The *** slept.")
ROW = {
    "row": 3, "id": "a\x1b", "text": "Anna lives in Paris.", "cosine": 0.981, "verdict": "likely",
    "verdict_in_words": VERDICTS["likely"],
    "gaps": [{
        "text": "Anna", "start": 0, "end": 4, "mark": "<NAME>", "kind": "name", "probability": 0.93,
        "alternatives": [{"text": "Emma\x1b", "cosine": 0.962, "probability": 0.05}],
    }],
}  # fmt: skip


@pytest.fixture(scope="module")
def vectors(encoder) -> np.ndarray:
    return encoder.encode(list(WHOLE)).numpy()


def write(path, texts, vectors):
    rows = [
        {"id": f"r{row}", "redacted": text, "embedding": vector}
        for row, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["fill", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_a_file_is_filled(capsys, vectors, tmp_path):
    """Texts beside the vectors of other texts, spans that miss the words, and a verdict that nobody can read."""
    source = write(tmp_path / "redacted.jsonl", REDACTED, vectors.tolist())
    outs = tmp_path / "out.jsonl", tmp_path / "out.parquet"
    for out in outs:
        code, _, err = run(capsys, source, "--text-column", "redacted", "--out", out, *QUICK)
        assert code == 0 and "wrote 3 texts" in err and "left out" not in err, err
    rows = rows_of(outs[0])
    assert [(row["row"], row["id"]) for row in rows] == [(0, "r0"), (1, "r1"), (2, "r2")]
    assert [row["text"].lower() for row in rows] == [text.lower() for text in WHOLE]
    for row, text in zip(rows, REDACTED, strict=True):
        assert list(row) == fillings.SCHEMA.names and 0.9 < row["cosine"] <= 1
        assert row["verdict_in_words"] == VERDICTS[row["verdict"]]
        (gap,) = row["gaps"]
        assert row["text"][gap["start"] : gap["end"]] == gap["text"] and gap["mark"] in text
        assert 0 < gap["probability"] <= 1 and gap["alternatives"][0]["cosine"] <= row["cosine"]
    for row, same in zip(rows, pq.read_table(outs[1]).to_pylist(), strict=True):
        assert same.keys() == row.keys() and same["gaps"][0].keys() == row["gaps"][0].keys()
        assert same["text"] == row["text"] and same["cosine"] == pytest.approx(row["cosine"])
        assert same["gaps"][0]["alternatives"][0]["text"] == row["gaps"][0]["alternatives"][0]["text"]


def test_a_filling_never_stands_alone(capsys, vectors, tmp_path):
    """A guess that is printed like a fact, without its mark, its probability and what else it may be."""
    source = write(tmp_path / "redacted.jsonl", REDACTED[1:2], vectors[1:2].tolist())
    code, out, err = run(capsys, source, "--text-column", "redacted", *QUICK)
    head, text, gap = out.splitlines()
    assert code == 0 and "1 text (" in err, err
    assert "r0  cosine 0.9" in head and any(f"{verdict}: {words}" in head for verdict, words in VERDICTS.items())
    assert text.strip() == "We will meet at the [station]."
    assert gap.strip().startswith("▇▇▇ = [station] ") and "%; else " in gap and "(cosine 0." in gap


def test_guesses_of_no_weight_are_not_shown():
    """Behind a certain word stood five others of 0 % each, and one line became three."""
    gap = ROW["gaps"][0]
    others = [
        {"text": name, "cosine": 0.9, "probability": share}
        for name, share in zip("abc", (0.2, 0.006, 0.004), strict=True)
    ]
    for given, shown in (
        (others, "else a 20 % (cosine 0.900), b 1 % (cosine 0.900)"),
        (others[2:], "else c 0 % (cosine 0.900)"),
    ):
        plain = io.StringIO()
        print_fillings([{**ROW, "gaps": [{**gap, "alternatives": given}]}], Console(file=plain))
        assert plain.getvalue().endswith(f"[Anna] 93 %; {shown}\n")


def test_the_first_ones_and_a_sample(capsys, vectors, tmp_path):
    """A look at a store of a million rows took all of them: `invert` had these flags, `fill` had not."""
    source, out = write(tmp_path / "v.jsonl", [REDACTED[1]] * 9, [vectors[1].tolist()] * 9), tmp_path / "o.jsonl"
    command = (source, "--text-column", "redacted", "--out", out, "--overwrite", *QUICK)
    rows = {}
    for flags in (("--limit", 2), ("--sample", 2, "--seed", 5), ("--sample", 2, "--seed", 6)):
        code, _, err = run(capsys, *command, *map(str, flags))
        assert code == 0, err
        rows[flags[-1], len(flags)] = [row["row"] for row in rows_of(out)]
    assert rows.pop((2, 2)) == [0, 1] and all(len(set(one)) == 2 for one in rows.values())
    assert rows[5, 4] != rows[6, 4]
    code, _, err = run(capsys, *command, "--sample", "3", "--limit", "3")
    assert code == 2 and "--limit or --sample, not both" in err


@pytest.mark.parametrize("no_color", [False, True])
def test_the_terminal_marks_the_filled_words(monkeypatch, no_color):
    """Brackets and a line under them must stay where colours do not; control characters must not steer a terminal."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    assert print_fillings([ROW], Console(file=file, force_terminal=True)) == 1
    shown = file.getvalue()
    assert ("[4;32m" in shown) is not no_color and "[4" in shown and "[Anna]" in shown
    plain = io.StringIO()
    print_fillings([ROW], Console(file=plain))
    assert "\x1b" not in plain.getvalue() and "[Anna] 93 %; else Emma  5 % (cosine 0.962)" in plain.getvalue()


def test_rows_that_cannot_be_filled_are_listed(capsys, vectors, tmp_path):
    """One bad row of a million must not cost the others, and none may vanish without a word."""
    texts = ["No gap here.", "▇▇▇", "word " * 260 + "▇▇▇", None, REDACTED[1], REDACTED[1]]
    rows = [*vectors[[0, 0, 0, 0, 1]].tolist(), None]
    source, out = write(tmp_path / "redacted.jsonl", texts, rows), tmp_path / "out.jsonl"
    arguments = (source, "--text-column", "redacted", *QUICK)
    code, _, err = run(capsys, *arguments, "--out", out)
    assert code == 3 and [row["row"] for row in rows_of(out)] == [4], err
    listed = [line.partition("redacted.jsonl: ")[2] for line in err.splitlines() if "warning" in line]
    begins = (
        "text 0 has no gap", "text 1 is nothing but gaps",
        "text 2 has gaps only behind its first 254 tokens: the encoder reads no further",
        "text 3 is empty", "row 5 is null", "5 rows were left out",
    )  # fmt: skip
    assert len(listed) == len(begins) and all(map(str.startswith, listed, begins)), err
    source = write(tmp_path / "strict.jsonl", texts[:5], rows[:5])
    code, _, err = run(capsys, source, *arguments[1:], "--strict")
    assert code == 2 and "text 0 has no gap" in err.splitlines()[-1]
    source = write(tmp_path / "none.jsonl", texts[:3], rows[:3])
    code, _, err = run(capsys, source, *arguments[1:])
    assert code == 2 and "no text can be filled: text 0 has no gap" in err.splitlines()[-1]


def test_the_encoder_judges_what_it_reads(capsys, encoder, tmp_path):
    """The encoder is loaded with the inverter's length: beyond it, every filling would have the same vector."""
    before = "The minutes of the town council were read and approved. " * 5
    texts = [f"{before}We will meet at the {word}." for word in ("station", "▇▇▇")]
    (vector,) = _whole(encoder, texts[:1])
    redacted = [texts[1], "word " * 254 + "▇▇▇"]
    source, out = write(tmp_path / "long.jsonl", redacted, [vector] * 2), tmp_path / "out.jsonl"
    arguments = (source, "--text-column", "redacted", "--out", out, "--feedback", "encoder", *QUICK)
    code, _, err = run(capsys, *arguments)
    (row,) = rows_of(out)
    assert code == 3 and row["verdict"] == "verified" and row["text"] == texts[0], err  # one row is too long
    assert "text 1 has gaps only behind its first 254 tokens: the encoder reads no further" in err


@pytest.mark.parametrize("feedback", ["surrogate", "encoder"])
def test_a_document_is_filled_as_far_as_it_is_read(capsys, encoder, tmp_path, feedback):
    """A document beyond the encoder's 254 tokens was left out, though its vector says what its beginning hides."""
    behind = " The minutes of the town council were read and approved." * 30
    whole = f"We will meet at the station.{behind} So said ▇▇▇."
    (vector,) = _whole(encoder, [whole])
    source, out = write(tmp_path / "long.jsonl", [whole.replace("station", "▇▇▇")], [vector]), tmp_path / "out.jsonl"
    code, _, err = run(
        capsys, source, "--text-column", "redacted", "--out", out, "--feedback", feedback, "--max-gap-tokens", "1",
        *QUICK,
    )  # fmt: skip
    (row,) = rows_of(out)
    assert code == 0 and row["text"] == whole and row["verdict"] == "unread", err
    assert [gap["text"] for gap in row["gaps"]] == ["station", "▇▇▇"] and row["gaps"][1]["probability"] == 0
    assert [whole[gap["start"] : gap["end"]] for gap in row["gaps"]] == ["station", "▇▇▇"]


def _whole(encoder, texts):
    from modeling_embinv.data.encoders import load_encoder

    own = load_encoder(encoder.config.id)
    own.read_whole_texts()
    return own.encode(texts).tolist()


def test_a_template_and_a_list(capsys, vectors, tmp_path):
    """The words of a list that the search ignores, or a template that is filled for the first vector alone."""
    np.save(tmp_path / "v.npy", vectors[[0, 1]])
    (tmp_path / "names.txt").write_text("Berlin\nParis\nMadrid\n")
    out, arguments = tmp_path / "out.jsonl", (tmp_path / "v.npy", *QUICK)
    template = ("--template", "Anna lives in <PLACE>.", "--mark", "tags")
    lists = ("--choices", f"PLACE={tmp_path / 'names.txt'}", "--choices", "CITY=countries")
    code, _, err = run(capsys, *arguments, *template, *lists, "--out", out)
    rows = rows_of(out)
    assert code == 0 and "--choices CITY: no mark of the texts has this word" in err and "CITY=" not in err, err
    assert rows[0]["text"].lower() == "anna lives in paris." and len(rows) == 2
    tried = {one["text"] for row in rows for gap in row["gaps"] for one in (gap, *gap["alternatives"])}
    assert {word.lower() for word in tried} <= {"berlin", "paris", "madrid", "<place>"}
    assert rows[1]["verdict"] == "unrelated"


def test_a_list_of_one_row_alone(capsys, recwarn, vectors, tmp_path):
    """A list for "Last name" was not that of [LAST NAME]; in parts without such a mark nobody may be warned of it."""
    texts = ("[LAST NAME] lives in Paris.", "We will meet at the ▇▇▇.")
    source = write(tmp_path / "redacted.jsonl", texts, vectors[:2].tolist())
    (tmp_path / "names.txt").write_text("Anna\nParis\n")
    out, flags = tmp_path / "out.jsonl", ("--batch-size", "1", "--choices", f"Last name={tmp_path / 'names.txt'}")
    code, _, err = run(capsys, source, "--text-column", "redacted", "--out", out, *QUICK, *flags)
    assert code == 0 and "--choices" not in err, err
    assert not [one for one in recwarn if "choices" in str(one.message)]
    (gap,) = rows_of(out)[0]["gaps"]
    assert {one["text"] for one in (gap, *gap["alternatives"])} <= {"Anna", "Paris", "[LAST NAME]"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "v.npy: holds no texts; columns: none; give the text of all vectors with --template."),
        (["--text-column", "x"], "no column 'x'"),
        (["--template", "Nothing."], "the template cannot be filled: text 0 has no gap"),
        (["--template", "A ▇▇▇.", "--mark", "tags"], "nothing in it is hidden by the marks tags"),
        (["--template", "A ▇▇▇.", "--out", "x.csv"], "the output must end in .jsonl or .parquet, got x.csv"),
    ],
)
def test_a_mistake_is_one_line(capsys, monkeypatch, vectors, tmp_path, arguments, message):
    """A file of vectors alone is the commonest mistake: the line must say what is missing."""
    monkeypatch.chdir(tmp_path)
    np.save("v.npy", vectors)
    code, out, err = run(capsys, "v.npy", *arguments)
    last = err.splitlines()[-1]
    assert code == 2 and out == "" and last.startswith("embinv fill: ") and message in last


def test_a_mark_of_ones_own(capsys, vectors, tmp_path):
    """A mark that is taken for a regular expression, or only beside the usual ones."""
    source = write(tmp_path / "redacted.jsonl", ["We will meet at the (.+)."], vectors[1:2].tolist())
    out = tmp_path / "out.jsonl"
    code, _, err = run(capsys, source, "--text-column", "redacted", "--mark", "(.+)", "--out", out, *QUICK)
    assert code == 0 and rows_of(out)[0]["text"] == WHOLE[1], err


def of_small_parts(monkeypatch, vectors, folder):
    """A source of three redacted texts, an output, and the arguments of a run whose parts are a row each."""
    source, out = write(folder / "redacted.jsonl", REDACTED, vectors.tolist()), folder / "out.jsonl"
    whole = fillings.fill_file
    monkeypatch.setattr(fillings, "fill_file", lambda *given, **options: whole(*given, part_rows=1, **options))
    return source, out, (source, "--text-column", "redacted", "--out", out, *QUICK)


def test_an_interrupted_run_goes_on(capsys, monkeypatch, vectors, tmp_path):
    """Work of hours that is done again, or an output of half the rows that looks like a whole one."""
    _, out, arguments = of_small_parts(monkeypatch, vectors, tmp_path)
    calls = []
    with monkeypatch.context() as patch:
        _count_fills(patch, calls, most=2)
        code, _, err = run(capsys, *arguments)
    assert code == 130 and "2 of 3 vectors are saved in" in err and "run the same command to resume" in err
    assert not out.exists()
    code, _, err = run(capsys, *arguments, "--choices", "NAME=countries")
    assert code == 2 and "was begun with other arguments: choices was" in err
    with monkeypatch.context() as patch:
        _count_fills(patch, calls := [], most=9)
        code, _, err = run(capsys, *arguments)
    assert code == 0 and "2 of them by an earlier run" in err and len(calls) == 1
    assert [row["row"] for row in rows_of(out)] == [0, 1, 2] and not out.with_name("out.jsonl.parts").exists()


@pytest.mark.parametrize(
    "change", [{"suppress_tokens": [2000]}, {"stop_cosine": 0.5}, {"calibration": {"fill_surrogate": {"bias": 1.0}}}]
)
def test_settings_of_the_model_are_the_runs(capsys, monkeypatch, vectors, tmp_path, change):
    """`embinv calibrate` between a kill and its resume: probabilities of two calibrations in one file."""
    *_, arguments = of_small_parts(monkeypatch, vectors, tmp_path)
    with monkeypatch.context() as patch:
        _count_fills(patch, [], most=1)
        assert run(capsys, *arguments)[0] == 130
    load = fill.load_model

    def changed(*arguments):
        model, tokenizer = load(*arguments)
        model.generation_config = model.generation_config.with_changes(**change)
        return model, tokenizer

    monkeypatch.setattr(fill, "load_model", changed)
    code, _, err = run(capsys, *arguments)
    assert code == 2 and f"was begun with other arguments: {next(iter(change))} was" in err


def _count_fills(patch, calls, most):
    from modeling_embinv import EmbInvForMaskedDiffusion

    original = EmbInvForMaskedDiffusion.fill

    def counted(*arguments, **options):
        if len(calls) == most:
            raise KeyboardInterrupt
        calls.append(1)
        return original(*arguments, **options)

    patch.setattr(EmbInvForMaskedDiffusion, "fill", counted)


def test_another_text_makes_another_part(vectors, tmp_path, monkeypatch, capsys):
    """A redacted text that was corrected after a kill would keep the filling of the old one."""
    source, out, arguments = of_small_parts(monkeypatch, vectors, tmp_path)
    with monkeypatch.context() as patch:
        _count_fills(patch, [], most=2)
        assert run(capsys, *arguments)[0] == 130
    write(source, ["Anna lives in <PLACE>.", *REDACTED[1:]], vectors.tolist())
    code, _, err = run(capsys, *arguments)
    assert code == 0 and "1 of them by an earlier run" in err
    assert rows_of(out)[0]["gaps"][0]["mark"] == "<PLACE>"


def test_the_help_names_every_mark(capsys):
    """The marks and the rows of a part stand in modules that import torch, so the flags repeat them."""
    _, out, _ = run(capsys, "--help")
    words = " ".join(out.split())
    assert all(f"{name} (" in words for name in MARKS) and fill._BATCH == fillings.PART_ROWS
    assert "embinv fill redacted.jsonl --text-column redacted --out filled.jsonl" in out
