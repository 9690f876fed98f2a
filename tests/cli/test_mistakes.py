"""What a user did wrong is one line on stderr and status 2; what the code did wrong is a traceback."""

import importlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from modeling_embinv.cli import demo, invert, outcome, prepare, resources
from modeling_embinv.cli import train as train_command
from modeling_embinv.cli.evaluate import _scored_above
from modeling_embinv.cli.main import main
from modeling_embinv.data.files import write_text
from modeling_embinv.data.flags import LARGEST_BATCH
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.evaluation.held_out import Score
from modeling_embinv.evaluation.report import Row
from modeling_embinv.inversion import rows
from tests.fresh_process import COMMAND

ROOT = Path(__file__).parents[2]
VECTOR = json.dumps([384**-0.5] * 384)
TEXTS = "constraints.txt"
WITHOUT_TORCH = [
    (["invrt"], "did you mean invert?"),
    (["--versoin"], "did you mean --version?"),
    (["invert"], "the following arguments are required: source"),
    (["invert", "missing.npy"], "missing.npy: no such file"),
    (["invert", ""], "vectors must be a file, a folder or a store's URL, got ''"),
    (["invert", "[1, 2]"], "2 numbers; expected 384"),
    (["invert", "[1, 2"], "is not JSON"),
    (["invert", '["a"]'], "must be a JSON list of numbers"),
    (["invert", "[" * 1_000_000], "nested too deeply"),
    (["invert", VECTOR, "--out", "x.jsonl"], "--out is for a file of vectors"),
    (["invert", VECTOR, "--num-step", "3"], "did you mean --num-steps?"),
    (["invert", VECTOR, "--num_steps", "three"], "invalid int value: 'three'"),
    (["invert", VECTOR, "--num_candidates", str(10**18)], "from 1 to 10,000"),
    (["invert", VECTOR, "--batch-size", "0"], "must be a whole number from 1 to 65,536, got '0'"),
    (["invert", VECTOR, "--batch_size", str(10**18)], "must be a whole number from 1 to 65,536"),
    (["invert", VECTOR, "--feedback", "encodr"], "did you mean encoder?"),
    (["invert", VECTOR, "--num-corrections", "2"], "--num-corrections needs --feedback"),
    (["invert", VECTOR, "--preset", "fast"], "must be one of quick, standard, thorough, got 'fast'"),
    (["invert", VECTOR, "--preset", "standard", "--feedback", "none"], "--preset standard needs --feedback"),
    (["invert", VECTOR, "--limit", "3"], "--limit is for a file of vectors, not for one"),
    (
        ["invert", VECTOR, "--strict", "--id_column", "x"],
        "--id-column, --strict are for a file of vectors, not for one",
    ),
    (["invert", VECTOR, "--limit", "3", "--sample", "3"], "give --limit or --sample, not both"),
    (["invert", VECTOR, "--sample", "0"], "must be a whole number from 1"),
    (["invert", VECTOR, "--seed", "-1"], "--seed must be from 0"),
    (["invert", VECTOR, "--seed", str(10**30)], "--seed must be from 0"),
    (["invert", VECTOR, "--model", "a/b/c"], "a/b/c: no such folder, and not"),
    (["invert", VECTOR, "--model", ""], "invert: --model is empty"),
    (["demo", "--model", " "], "demo: --model is empty"),
    (["invert", TEXTS, "--out", "x.csv"], "the output must end in .jsonl or .parquet, got x.csv"),
    (["invert", TEXTS, "--out", "docs"], "docs is a folder: give the name of a .jsonl or .parquet file"),
    (["invert", TEXTS], "constraints.txt: unknown kind of file"),
    (["invert", "milvus:x"], "milvus:x: no such file, and no kind of store; known: chroma:, "),
    (["invert", "chroma:missing", "--table", "x"], "chroma:missing: no such file or folder"),
    (["prepare", "--vectors", "missing.npy", "--out", "x"], "missing.npy: no such file or folder"),
    (["fill"], "the following arguments are required: source"),
    (["fill", "missing.jsonl"], "missing.jsonl: no such file"),
    (["fill", TEXTS], "constraints.txt: unknown kind of file"),
    (["fill", "missing.jsonl", "--template", "A ▇▇▇.", "--text-column", "x"], "--template or --text-column, not both"),
    (["fill", "missing.jsonl", "--choices", "first-names"], "must be TAG=LIST, as NAME=first-names"),
    (["fill", "missing.jsonl", "--choices", "NAME=firstnames"], "firstnames: no such file, and no list of that name"),
    (["fill", "missing.jsonl", "--num-tokens", "0"], "must be a whole number from 1 to 64"),
    (["fill", "missing.jsonl", "--num-beams", "0"], "num_beams must be a whole number from 1"),
    (["fill", "missing.jsonl", "--feedback", "none"], "invalid choice: 'none'"),
    (["fill", "missing.jsonl", "--model", "a/b/c"], "a/b/c: no such folder, and not"),
    (["demo", "", "  "], "every sentence is empty"),
    (["demo", "--model", "/nothing/here"], "/nothing/here: no such folder"),
    (["prepare", "--out", "x"], "give texts"),
    (["prepare", "a.txt"], "required: --out"),
    (["prepare", "a.txt", "--otu", "x"], "did you mean --out?"),
    (["prepare", "missing.txt", "--out", "x"], "missing.txt: no such file"),
    (["prepare", "--vectors", "missing.npy", "--out", "x"], "missing.npy: no such file"),
    (["prepare", "--hub", "a:b:c", "--out", "x"], "'c' is not a count"),
    (["prepare", TEXTS, "--out", TEXTS], f"--out {TEXTS}: nothing can be written there; give a folder"),
    (["prepare", TEXTS, "--out", "x", "--length", "0"], "must be a whole number from 1"),
    (["prepare", TEXTS, "--out", "x", "--limit", "-1"], "must be a whole number from 1"),
    (["prepare", TEXTS, "--out", "x", "--share", "0"], "--share must be above 0"),
    (["prepare", TEXTS, "--out", "x", "--share", "nan"], "must be a number from 0 to 1"),
    (["prepare", TEXTS, "--out", "x", "--test_share", "0.6", "--validation_share", "0.6"], "at most 1 together"),
    (["prepare", TEXTS, "--out", "x", "--languages", "de"], "--languages names sub-folders of a folder of texts"),
    (["prepare", "--hub", "a:b=1", "--out", "x", "--languages", "de"], "--languages names sub-folders of a folder"),
    (["evaluate", TEXTS, "--split", "test"], "--split is of --pairs: files of texts have no splits"),
    (["evaluate"], "give text files, or folders"),
    (["evaluate", "missing.txt"], "missing.txt: no such file"),
    (["evaluate", "--pairs", "missing"], "missing: no such folder"),
    (["evaluate", "--pairs", TEXTS], f"{TEXTS} is a file: --pairs takes folders of `embinv prepare`"),
    (["evaluate", "--pairs", "docs", "--split", "tset"], "did you mean test?"),
    (["evaluate", TEXTS, "--out", "/nowhere/scores.json"], "--out /nowhere/scores.json: this file cannot be written"),
    (["evaluate", TEXTS, "--out", "./" + TEXTS], f"--out ./{TEXTS} would replace what is read; give another file"),
    (["evaluate", TEXTS, "./" + TEXTS], "./constraints.txt is given twice"),
    (["evaluate", "--pairs", "docs", "tests", "docs/"], "docs/ is given twice"),
    (["evaluate", TEXTS, "--plots", TEXTS], "--plots constraints.txt: nothing can be written there"),
    (["evaluate", TEXTS, "--plots", f"{TEXTS}/plots"], "--plots constraints.txt/plots: nothing can be written there"),
    (["calibrate", "x", "--model", "no/folder"], "no/folder: no such folder"),
    (["calibrate", "x", "--model", ""], "calibrate: --model is empty"),
    (["calibrate", TEXTS], f"{TEXTS} is a file: calibrate takes folders of `embinv prepare`"),
    (["push", "x", "--repo", "y"], "--repo must be user/name"),
    (["push", "missing", "--repo", "x/y"], "missing: no such folder"),
    (["train", "missing.yaml"], "cannot read missing.yaml"),
    (["train", "--encoder", "minilm"], "give output_dir"),
    (["train", "configs/minilm_cpu.yaml", "--max-stps", "3"], "did you mean --max-steps?"),
    (["train", "configs/minilm_cpu.yaml", "--batch_size", "0"], "batch_size must be at least 1"),
    (["train", "configs/minilm_cpu.yaml", "--loss_weight", "elbow"], "did you mean elbo?"),
]
WITH_TORCH = [
    (["invert", VECTOR, "--device", "nonsense"], "--device nonsense is not on this machine; it has cpu"),
    (["invert", VECTOR, "--device", "meta"], "--device meta is not on this machine"),
    (["invert", VECTOR, "--device", "cuda:99"], "--device cuda:99 is not on this machine"),
    (["prepare", TEXTS, "--out", "x", "--device", "nonsense"], "--device nonsense is not on this machine"),
    (["prepare", TEXTS, "--out", "x", "--encoder", "minilmm"], "minilmm"),
    (["invert", VECTOR, "--strategy", "greedy"], "strategy must be one of"),
    (["demo", "--num_steps", "0"], "num_steps must be a whole number"),
    (["demo", "--max_length", "99"], "max_length 99 is more than"),
    (["demo", "--encoder", "README.md"], "cannot be loaded"),
    (["evaluate", TEXTS, "--max-tokens", "1", "--limit", "1"], "has no text of at most 1 tokens"),
]


def one_line(capsys, arguments: list[str], message: str) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.splitlines()) == 1 and len(captured.err) < 1000
    return captured.err


@pytest.mark.parametrize("arguments, message", WITHOUT_TORCH)
def test_a_mistake_is_one_line(capsys, monkeypatch, arguments, message):
    """A stack trace tells a user nothing, and a page of usage hides the one line that does."""
    monkeypatch.chdir(ROOT)
    assert one_line(capsys, arguments, message).startswith("embinv")


@pytest.mark.parametrize(
    "command",
    [["invert", VECTOR], ["invert", "many.npy"], ["fill", "one.npy", "--template", "A ▇▇▇."], ["demo", "A text."],
     ["evaluate", TEXTS], ["calibrate", "docs"], ["audit", "many.npy", "--out", "report"], ["push"]],
    ids=lambda command: " ".join(command[:2]).removesuffix(VECTOR),
)  # fmt: skip
def test_the_folder_of_a_run_is_told_from_an_inverter(capsys, monkeypatch, tmp_path, command):
    """`--model runs/two` was "not whole; download it again": the run's inverters lie one level deeper."""
    monkeypatch.chdir(tmp_path)
    for name, count in (("one", 1), ("many", 60)):
        np.save(f"{name}.npy", np.random.default_rng(0).normal(size=(count, 384)).astype(np.float32))
    Path(TEXTS).write_text("A text.")
    Path("docs").mkdir()
    for name in ("best", "last"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    model = [str(tmp_path), "--repo", "me/mine"] if command == ["push"] else ["--model", str(tmp_path)]
    one_line(
        capsys, [*command, *model], f"{tmp_path} is the folder of a run: give {tmp_path}/best or {tmp_path}/last."
    )


@pytest.mark.parametrize("arguments, message", WITH_TORCH)
def test_a_mistake_that_torch_finds_is_one_line(capsys, monkeypatch, arguments, message):
    """Errors of torch, of the tokenizer or of sentence-transformers that pass for bugs."""
    monkeypatch.chdir(ROOT)
    one_line(capsys, arguments, message)


def test_every_mistake_of_the_parser_is_found_without_torch():
    """A mistyped flag that costs seconds of imports before its one line."""
    script = (
        "import json, sys\nfrom modeling_embinv.cli.main import main\n"
        "codes = [main(arguments) for arguments in json.load(sys.stdin)]\n"
        "heavy = {'torch', 'transformers', 'datasets', 'accelerate', 'sentence_transformers'} & set(sys.modules)\n"
        "sys.exit(f'{codes} {heavy}' if heavy or set(codes) != {2} else 0)"
    )
    mistakes = json.dumps([arguments for arguments, _ in WITHOUT_TORCH])
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, input=mistakes)
    assert done.returncode == 0, done.stderr[-500:]


def test_train_py_ends_as_the_command_does():
    """A traceback of a misspelt flag, or another status for the same mistake."""
    done = subprocess.run([sys.executable, "train.py", "--max_stps", "1"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("train.py: unknown argument '--max-stps'; did you mean --max-steps?")


def test_underscores_and_hyphens_are_the_same_flag(capsys, monkeypatch):
    """README and old scripts have the one, help texts the other; a value keeps its underscores."""
    seen = []
    monkeypatch.setattr(invert, "_invert", seen.append)
    main(["invert", "a_b.npy", "--num_steps", "3", "--id_column=my_id", "--out", "c_d.jsonl", "--batch-size", "2"])
    main(["invert", "a_b.npy", "--num-steps", "3", "--id-column", "my_id", "--out=c_d.jsonl", "--batch_size=2"])
    for options in seen:
        del options.idle_cores  # no flag, but a measurement
    assert vars(seen[0]) == vars(seen[1]) and seen[0].source == "a_b.npy"
    assert (seen[0].id_column, seen[0].out, seen[0].num_steps, seen[0].batch_size) == ("my_id", "c_d.jsonl", 3, 2)


@pytest.mark.parametrize(
    "command", ["demo", "invert", "fill", "audit", "prepare", "evaluate", "calibrate", "push", "train"]
)
def test_help_has_hyphens_and_defaults(capsys, command):
    """Two conventions in one page, a default that only the code knows, or a help text that does not format."""
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    flags = {word.strip("[],") for word in shown.split() if word.strip("[],").startswith("--")}
    assert len(flags) > 3 and "--debug" in flags and not any("_" in flag for flag in flags)
    assert command == "push" or "(default: " in shown
    examples = [line for line in shown.splitlines() if line.startswith(f"  embinv {command}")]
    assert len(examples) == 3 and "exit status:" in shown and "130 Ctrl-C" in shown


def test_version_and_no_arguments(capsys):
    """A report of a bug that names no version; two lines of usage where the help belongs."""
    assert main(["--version"]) == main([]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("embinv 0.") and "torch " in shown and "usage: embinv" in shown and "prepare" in shown


@pytest.mark.parametrize("error", [ValueError("broken"), KeyError("broken"), TypeError("broken")])
def test_a_bug_is_a_traceback(monkeypatch, error):
    """A ValueError of the code's own in one line hides where it arose."""

    def fail(options):
        raise error

    monkeypatch.setattr(demo, "_demo", fail)
    with pytest.raises(type(error), match="broken"):
        main(["demo"])


def test_debug_shows_where_an_error_arose(capsys):
    """Somebody who mends the code needs the line, somebody who uses it does not."""
    for arguments in (["--debug", "invert", "missing.npy"], ["invert", "missing.npy", "--debug"]):
        assert main(arguments) == 2
        shown = capsys.readouterr().err
        assert "Traceback" in shown and shown.splitlines()[-1] == "embinv invert: missing.npy: no such file"
    assert main(["train", "missing.yaml", "--debug"]) == 2 and "Traceback" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_warnings_are_shown_as_before_after_a_command(monkeypatch, capsys):
    """`warnings.showwarning` was replaced for the whole process."""
    before = warnings.showwarning
    monkeypatch.setattr(demo, "_demo", lambda options: warnings.warn("mind the gap", stacklevel=1))
    assert main(["demo"]) == 0 and capsys.readouterr().err == "embinv: warning: mind the gap\n"
    assert warnings.showwarning is before


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_ctrl_c_says_what_is_kept(capsys, monkeypatch, tmp_path):
    """The line "the same command goes on from here" was said by commands that keep nothing."""
    monkeypatch.chdir(tmp_path)

    def said(*arguments: str) -> str:
        assert main(list(arguments)) == 130
        (line,) = capsys.readouterr().err.splitlines()
        return line

    monkeypatch.setattr(demo, "_demo", interrupted)
    assert said("demo") == "embinv demo: interrupted. Nothing was saved."
    monkeypatch.setattr(invert, "_invert_file", interrupted)
    assert said("invert", "v.npy", "--out", "o.jsonl").endswith("Nothing was saved.")
    (tmp_path / "o.jsonl.parts").mkdir()
    (tmp_path / "o.jsonl.parts" / "000000000000-ab.jsonl").write_text("{}\n{}\n")
    (tmp_path / "o.jsonl.parts" / "000000000512-ab.jsonl.partial").write_text("{}\n")
    resumed = "2 texts are saved in o.jsonl.parts; run the same command to resume."
    assert said("invert", "v.npy", "--out", "o.jsonl").endswith(resumed)
    assert said("invert", "v.npy", "--out", "-").endswith("Nothing was saved.")
    assert outcome.saved_parts("o.jsonl", 2000).startswith("2 of 2,000 vectors are saved in")
    Path("whole.jsonl").write_text("{}")
    assert (
        outcome.saved_parts("whole.jsonl", 1, Path("whole.jsonl").stat().st_mtime) == "All texts are in whole.jsonl."
    )
    assert outcome.saved_parts("whole.jsonl", 1, time.time() + 60) == ""  # it is of an earlier run
    assert said("invert", "v.npy").endswith("Nothing was saved.")
    monkeypatch.setattr(train_command, "_newest_checkpoint", lambda config, _: f"{config.output_dir} kept.")
    monkeypatch.setattr("modeling_embinv.training.assemble.train", interrupted)
    flags = ["--output-dir", "run", "--encoder", "minilm", "--texts", "a.txt", "--backbone", "encoder"]
    assert said("train", *flags).endswith("run kept.")


def test_ctrl_c_in_a_sweep_leaves_what_was_scored(capsys):
    """Hours of a sweep left nothing: the table came when all of it was done."""
    row = Row("inversion", "num_steps 4", 9, {"BLEU": Score(12.3, 9.87, 15.0)})
    line = "Nothing was saved; 1 of 2 settings are scored above."
    with pytest.raises(KeyboardInterrupt, match=line), _scored_above(2) as show:
        show(row)
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "1/2 num_steps 4: BLEU 12.3 [9.9, 15.0]\n"
    with pytest.raises(KeyboardInterrupt, match="^$"), _scored_above(1) as show:
        show(row)
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "", "the table has it"


def test_ctrl_c_in_training_names_the_newest_checkpoint(tmp_path):
    """A checkpoint that is half written, or none, is nothing to resume from."""

    class Config:
        output_dir, resume = str(tmp_path), True

    assert "holds no checkpoint" in train_command._newest_checkpoint(Config, set())
    for name in ("step-000000006", "step-000000012", "step-000000018.partial"):
        (tmp_path / name).mkdir()
    line = train_command._newest_checkpoint(Config, set())
    assert line == f"{tmp_path / 'step-000000012'} is the newest checkpoint; run the same command to resume from it."


def test_ctrl_c_in_a_run_that_starts_over_knows_its_own_checkpoints(tmp_path):
    """The old run's checkpoint was named as if the new one could be resumed from it."""

    class Config:
        output_dir, resume = str(tmp_path), False

    (tmp_path / "step-000000012").mkdir()
    old = train_command._checkpoints(Config)
    (tmp_path / "step-000000012" / "log.jsonl").touch()  # the old run's log, put aside
    line = train_command._newest_checkpoint(Config, old)
    assert line.startswith("The run has no checkpoint yet") and f"{tmp_path / 'step-000000012'} is of the run" in line
    (tmp_path / "step-000000003").mkdir()
    line = train_command._newest_checkpoint(Config, old)
    assert line.startswith(str(tmp_path / "step-000000003")) and "leave out --no-resume" in line


def test_ctrl_c_names_the_shards_of_prepare(tmp_path):
    """Only what the manifest names counts when the command is given again."""
    assert prepare._finished(str(tmp_path)) == ""
    (tmp_path / "manifest.json").write_text('{"documents": 0}')
    assert prepare._finished(str(tmp_path)) == ""
    (tmp_path / "manifest.json").write_text('{"documents": 20000}')
    assert prepare._finished(str(tmp_path)).startswith("The pairs of 20,000 texts are saved in")


def test_a_full_disk_says_what_is_kept(capsys, tmp_path, file_limit):
    """A run of hours ended with a line that named no file, and as if nothing of it were left."""
    path = tmp_path / "texts.jsonl"

    def write():
        file_limit(10)
        with outcome.on_interrupt(lambda: "outer"), outcome.on_interrupt(lambda: "9 texts are saved in there."):
            write_text(path, "a line of twenty signs")

    assert outcome.outcome("embinv invert", [], write) == 2
    file_limit(None)
    assert capsys.readouterr().err == (
        f"embinv invert: {path} cannot be written: File too large. 9 texts are saved in there.\n"
    )


@pytest.mark.parametrize("rank", [None, "0", "1"])
def test_a_launcher_does_not_take_rows_that_are_left_out_for_a_failure(monkeypatch, capsys, rank):
    """torchrun showed a traceback and ended the other process, which had the file to write.

    Each process said which column it reads, two of them in one line.
    """
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
        if rank is not None:
            monkeypatch.setenv(name, rank)
    assert [outcome.incomplete(count) for count in (0, 2)] == [None, outcome.INCOMPLETE if rank is None else None]
    with resources.messages_on_stderr():
        logging.getLogger("modeling_embinv.stores").info("ids in column 'id'")
    assert capsys.readouterr().err == ("" if rank == "1" else "embinv: ids in column 'id'\n")


def test_nested_sentences_keep_the_inner_one():
    """The innermost block knows best what there is."""
    with (
        pytest.raises(KeyboardInterrupt, match="^inner$"),
        outcome.on_interrupt(lambda: "outer"),
        outcome.on_interrupt(lambda: "inner"),
        outcome.on_interrupt(lambda: ""),
    ):
        raise KeyboardInterrupt


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_ctrl_c_is_not_lost_while_an_object_is_deleted(is_busy, capsys, monkeypatch):
    """Python ignores what is raised there: the command went on, and wrote an ignored exception to the terminal.

    On a busy machine the signal that is sent again came too early, and was lost in the same way.
    """
    plain, started = threading.Timer, []

    class SlowTimer(plain):
        def start(self):
            super().start()
            started.append(self)
            if len(started) == 1:
                time.sleep(1)

    monkeypatch.setattr(threading, "Timer", SlowTimer if is_busy else plain)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # other tests' libraries may have left their own

    class Deleted:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def run():
        Deleted()
        time.sleep(20)

    try:
        assert outcome.outcome("embinv invert", [], run) == outcome.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)  # None: one that Python does not know
    assert capsys.readouterr().err == "embinv invert: interrupted. Nothing was saved.\n"


# a finder that is asked for the commands deletes an object just when the Ctrl-C comes
WHILE_IMPORTED = """
import signal, sys, time
from modeling_embinv import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
class Deleted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
class Finder:
    def find_spec(name, *_):
        if name == f"modeling_embinv.cli.{sys.argv[2]}":
            if sys.argv[3] == "lost":
                Deleted()
            else:
                signal.raise_signal(signal.SIGINT)
            time.sleep(20)
sys.meta_path.insert(0, Finder)
sys.exit(getattr(cli, sys.argv[1])())
"""


@pytest.mark.parametrize(
    "start, module, name", [("command", "main", "embinv"), ("train_command", "train", "train.py")]
)
@pytest.mark.parametrize("kind", ["raised", "lost"])
def test_a_ctrl_c_while_the_commands_are_imported(start, module, name, kind):
    """Of train.py it was a traceback, and one that came while an object was deleted was lost: the command went on."""
    code = [sys.executable, "-c", WHILE_IMPORTED, start, module, kind]
    done = subprocess.run(code, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, f"{name}: interrupted. Nothing was saved.\n")


@pytest.mark.parametrize("leave", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), EmbInvError("no text.")])
def test_the_last_line_does_not_stand_behind_a_bar(capsys, error, leave):
    """A Ctrl-C during `embinv evaluate` was answered behind the bar, which its traceback kept alive."""

    def failing():
        raise error

    def run():
        bar = iter(tqdm(range(3), file=sys.stderr, leave=leave))
        return [failing() for _ in bar]

    outcome.outcome("embinv evaluate", [], run)
    said = "no text." if isinstance(error, EmbInvError) else "interrupted. Nothing was saved."
    assert re.search(rf"[\r\n]embinv evaluate: {said}\n$", capsys.readouterr().err)


def test_a_closed_pipe_is_no_error():
    """`embinv … | head -1` must not end in a message."""
    command = f"{sys.executable} -m modeling_embinv.cli train --help | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.splitlines()[0].startswith("usage:")
    assert int(done.stdout.splitlines()[-1]) in (0, 128 + signal.SIGPIPE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is full")
@pytest.mark.parametrize(
    "lines", ["print('a')", "from modeling_embinv.inversion.terminal import write_line; write_line('a')"]
)
def test_a_full_disk_behind_standard_output(fresh, lines):
    """The line "[Errno 28] No space left on device" was said of `embinv … > texts.jsonl`, as if of any file."""
    code = f"""
import os, sys
sys.stdout = open(os.dup2(os.open("/dev/full", os.O_WRONLY), 1), "w")  # buffered, as a command's own is
from modeling_embinv.cli.outcome import outcome
def run():
    {lines}
sys.exit(outcome("embinv", [], run))
"""
    done = fresh.run(code, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == "embinv: standard output cannot be written: No space left on device\n"


PRINTS = """
import sys
from modeling_embinv.cli.outcome import outcome
sys.exit(outcome("embinv", [], lambda: print("un\\u2587\\u2587able")))
"""
C = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}


@pytest.mark.parametrize(
    "environment, shown",
    [
        ({"PYTHONIOENCODING": "cp1252"}, "un??able"),
        (C, "un??able"),
        ({"PYTHONIOENCODING": "ascii:backslashreplace"}, "un\\u2587\\u2587able"),
        ({"PYTHONIOENCODING": "utf-8"}, "un\u2587\u2587able"),
    ],
    ids=["windows", "c", "chosen", "utf8"],
)
def test_characters_that_the_output_does_not_have(environment, shown):
    """A summary with a mark of hidden words was a traceback, after the work was done."""
    command = [sys.executable, "-c", PRINTS]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{shown}\n", b"")


@pytest.mark.parametrize("command", ["fill", "train"])
def test_help_where_the_output_is_ascii(command):
    """Help that names the marks of hidden words was a traceback in Windows' own encodings."""
    done = subprocess.run(
        [sys.executable, "-m", "modeling_embinv.cli", command, "--help"],
        cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith(b"usage: ") and b"exit status:" in done.stdout
    assert not done.stderr


def test_the_largest_batch_of_the_flag_is_that_of_the_call():
    """Two numbers for one bound part sooner or later."""
    flag = f"from 1 to {LARGEST_BATCH:,}"
    with pytest.raises(EmbInvError, match=flag):
        next(rows.invert_vectors(None, None, None, batch_size=LARGEST_BATCH + 1))
    assert any(flag in message for _, message in WITHOUT_TORCH)


# Ctrl-C while a module is imported
INTERRUPTED = """
import os, signal, sys, threading, time
from modeling_embinv.cli import command
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
module = sys.argv.pop(1)
def interrupt():
    while module not in sys.modules:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
status = command()
sys.stdout.flush()
os._exit(status)
"""


SEARCH = ["invert", VECTOR, "--preset", "thorough", "--num-searches", "9"]


@pytest.mark.parametrize("module", ["torch.nn", "transformers.modeling_utils"])
def test_ctrl_c_while_libraries_are_imported(module):
    """While torch is imported, the answer was a traceback."""
    command = [sys.executable, "-c", INTERRUPTED, module, *SEARCH]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (130, "embinv invert: interrupted. Nothing was saved.\n")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="Windows has other terminals")
def test_ctrl_c_at_a_terminal_takes_the_bar_away():
    """The line stood behind the bar."""
    code = f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{COMMAND}"
    terminal, own_end = os.openpty()
    importlib.import_module("termios").tcsetwinsize(terminal, (24, 100))
    shown = b""
    with subprocess.Popen([sys.executable, "-c", code, *SEARCH], cwd=ROOT, stderr=own_end) as process:
        os.close(own_end)
        with suppress(OSError):  # nobody holds the other end any more
            while more := os.read(terminal, 9999):
                if b"round" in more and b"round" not in shown:
                    process.send_signal(signal.SIGINT)
                shown += more
    os.close(terminal)
    assert process.returncode == 130 and b"0 of 1 vector, round" in shown, shown
    assert re.search(rb"\r +\rembinv invert: interrupted\. Nothing was saved\.\r\n$", shown), shown
