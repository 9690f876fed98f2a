"""What experiments and benchmarks say of a mistake on the command line, and when."""

import shutil
import sys

import elsewhere
import pytest
import run
import startup
import throughput
import verdicts


def refused(capsys, main, arguments: list[str]) -> str:
    """The last line of what a script says when it ends with status 2."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "lines, message",
    [
        (None, "experiment.yaml: [Errno 2] No such file"),
        ("- one\n- two\n", "experiment.yaml is no experiment: it needs title, reduced, variants"),
        (
            "title: t\nfull: {config: c.yaml}\nvariants: {a: {}}\n",
            "experiment.yaml is no experiment: it needs reduced",
        ),
        (
            "title: t\nreduced: {config: c.yaml}\nvariants: [a, b]\n",
            "experiment.yaml: variants must have names, as in `name: flags`",
        ),
    ],
)
def test_a_file_that_is_no_experiment_is_named(capsys, tmp_path, lines, message):
    """A missing file, or one of other keys, ended in a traceback."""
    path = tmp_path / "experiment.yaml"
    if lines is not None:
        path.write_text(lines)
    assert message in refused(capsys, run.main, [str(path)])


def test_pairs_that_are_not_prepared_are_named(capsys, tmp_path, monkeypatch):
    """An experiment before `embinv prepare` ended in a traceback of the training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "FOLDER", shutil.copytree(run.FOLDER, tmp_path / "experiments"))
    message = refused(capsys, run.main, [str(run.FOLDER / "choices.yaml"), "--only", "baseline"])
    assert "holds no manifest.json; make the folder with `embinv prepare`" in message


def test_an_experiment_inverts_at_least_a_text(capsys):
    """`--texts 0` trained a variant for hours and then had nothing to score."""
    message = refused(capsys, run.main, [str(run.FOLDER / "choices.yaml"), "--texts", "0"])
    assert "argument --texts: must be a whole number from 1 to" in message


def test_a_missing_collection_is_named_before_the_model_is_loaded(capsys, monkeypatch, tmp_path):
    """The checkpoint and the encoder were loaded, then a traceback named one missing file of four."""
    monkeypatch.setattr(elsewhere.AutoModel, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded"))
    assert f"{tmp_path}/none holds no TREC_10.en.label, sts-test.csv, tune.tsv, en_atis" in refused(
        capsys, elsewhere.main, [str(tmp_path / "none")]
    )
    (tmp_path / "sts-test.csv").touch()
    assert "holds no TREC_10.en.label, tune.tsv, en_atis" in refused(capsys, elsewhere.main, [str(tmp_path)])


def test_a_missing_corpus_is_named(capsys, monkeypatch, tmp_path):
    """Without the training corpus no text was found in it, so texts that were trained on passed for new ones."""
    monkeypatch.setattr(elsewhere.AutoModel, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded"))
    for name, _ in elsewhere.SOURCES.values():
        (tmp_path / name).touch()
    monkeypatch.setattr(elsewhere, "TRAINING", tmp_path / "corpus")
    message = refused(capsys, elsewhere.main, [str(tmp_path)])
    assert f"{tmp_path}/corpus holds no .txt.xz file of the training corpus" in message


def test_a_missing_text_file_is_named_before_the_model_is_loaded(capsys, monkeypatch, tmp_path):
    """A mistyped name was found after the model and the encoder had been loaded, in a traceback."""
    monkeypatch.setattr(verdicts, "load_inverter", lambda *_: pytest.fail("the model was loaded"))
    (tmp_path / "there.txt").write_text("A red kite flies over the sea.\n")
    files = [str(tmp_path / name) for name in ("there.txt", "missing.txt")]
    assert f"{tmp_path}/missing.txt: no such file" in refused(capsys, verdicts.main, files)
    assert "the following arguments are required" in refused(capsys, verdicts.main, [])


@pytest.mark.parametrize(
    "flag", ["length", "vocab_size", "steps", "batch_sizes", "train_batch_size", "repeats", "threads"]
)
def test_a_throughput_of_nothing_is_refused(capsys, flag):
    """A batch of 0 ended in a division by zero, and 0 threads were taken for no flag."""
    message = refused(capsys, throughput.parse, [f"--{flag}", "0"])
    assert f"argument --{flag}: must be a whole number from 1 to" in message


def test_a_negative_time_is_refused(capsys):
    """Time that is below zero passed for none."""
    assert "argument --seconds: must be a number from 0 to" in refused(capsys, throughput.parse, ["--seconds", "-1"])


def test_a_command_is_started_at_least_once(capsys):
    """The best of no times ended in a traceback."""
    assert "argument --repeats: must be a whole number from 1" in refused(capsys, startup.main, ["--repeats", "0"])


def test_what_is_timed_may_keep_its_compiled_files(monkeypatch, tmp_path):
    """With PYTHONDONTWRITEBYTECODE set, each run compiled all files anew, so that no run was of imports alone."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    told = tmp_path / "told.txt"
    write = f"import pathlib, sys; pathlib.Path({str(told)!r}).write_text(str(sys.dont_write_bytecode))"
    assert startup.cpu_seconds([sys.executable, "-c", write]) > 0
    assert told.read_text() == "False"
