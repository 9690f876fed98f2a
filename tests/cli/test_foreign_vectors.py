"""Vectors of another encoder: `invert` and `fill` stop with one line, and --force goes on; the pipeline warns."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from transformers import pipeline

from modeling_embinv.cli.main import main
from modeling_embinv.inversion.rows import invert_vectors
from modeling_embinv.loading import load_inverter
from modeling_embinv.training.checkpoints import export
from tests.audit.conftest import TEXTS, model, write  # noqa: F401  (fixture)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def own(encoder) -> np.ndarray:
    return encoder.encode([f"{text} {number}" for text in TEXTS for number in range(8)]).numpy()


def foreign(kind: str, own: np.ndarray) -> np.ndarray:
    generator = np.random.default_rng(0)
    turn = np.linalg.qr(generator.standard_normal((384, 384)))[0]
    return {
        "random": generator.standard_normal(own.shape), "rotated": own @ turn, "cut": own[:, :192],
        "bad row": np.concatenate([np.zeros((1, 384)), own @ turn]),
    }[kind].astype(np.float32)  # fmt: skip


def invert(capsys, source, model, out, *more) -> tuple[int, str]:  # noqa: F811
    code = main(["invert", *map(str, (source, "--model", model, "--out", out, "--preset", "quick", *more))])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    "kind, words, more",
    [
        ("random", "random numbers", ()), ("rotated", "another encoder", ()), ("cut", "first 192", ()),
        ("rotated", "another encoder", ("--strict",)), ("rotated", "another encoder", ("--sample", "3")),
        ("bad row", "another encoder", ()), ("bad row", "row 0", ("--strict",)),
    ],
)  # fmt: skip
def test_a_clear_mismatch_stops(capsys, model, own, tmp_path, kind, words, more):  # noqa: F811
    """Fluent texts of another encoder's vectors, with a warning that scrolled away, and exit status 0."""
    source = write(tmp_path / "dump.parquet", foreign(kind, own))
    code, err = invert(capsys, source, model, tmp_path / "texts.jsonl", *more)
    line = err.splitlines()[-1]
    assert code == 2 and words in line and not list(tmp_path.glob("texts*"))
    assert words != "another encoder" or ("all-MiniLM-L6-v2" in line and "--model" in line and "--force" in line)


def test_a_mismatch_is_found_before_the_weights_are_loaded(capsys, model, own, tmp_path):  # noqa: F811
    """Minutes of loading, or of downloading, before the line that says that the vectors are another encoder's."""
    weightless = shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    source = write(tmp_path / "dump.parquet", foreign("rotated", own))
    code, err = invert(capsys, source, weightless, tmp_path / "texts.jsonl")
    assert code == 2 and "another encoder" in err.splitlines()[-1]
    code, err = invert(capsys, source, weightless, tmp_path / "texts.jsonl", "--force")
    assert code != 0 and "is not a readable inverter" in err.splitlines()[-1]


def test_a_mismatch_needs_no_network(fresh, model, own, tmp_path):  # noqa: F811
    """Half of the seconds before the line went into importing the code of a model that is not loaded."""
    source = write(tmp_path / "dump.parquet", foreign("rotated", own))
    script = (
        "import sys\nfrom modeling_embinv.cli.main import main\n"
        "code = main(sys.argv[1:])\nsys.exit(code + 10 * ('modeling_embinv.modeling_embinv' in sys.modules))"
    )
    done = fresh.run(script, "invert", str(source), "--model", str(model), cwd=ROOT)
    assert done.returncode == 2 and "another encoder" in done.stderr, done.stderr[-500:]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("more", [(), ("--strict",)])
def test_force_goes_on(capsys, model, own, tmp_path, more):  # noqa: F811
    """A store that its owner knows to be changed a little could not be tried at all."""
    source, out = write(tmp_path / "dump.parquet", foreign("rotated", own)), tmp_path / "texts.jsonl"
    code, err = invert(capsys, source, model, out, "--force", "--limit", "20", *more)
    assert code == 0 and len(out.read_text(encoding="utf-8").splitlines()) == 20 and "look like" in err


@pytest.mark.filterwarnings("default")
def test_few_vectors_and_own_ones_are_not_stopped(capsys, model, own, tmp_path):  # noqa: F811
    """A few vectors say little of their encoder; scaled, int8 and half-precision ones are its own."""
    few = write(tmp_path / "few.parquet", foreign("rotated", own)[:49])
    assert invert(capsys, few, model, tmp_path / "few.jsonl", "--limit", "1")[0] == 0
    for name, vectors in (("own", own), ("scaled", 7 * own), ("int8", np.rint(400 * own)), ("half", np.float16(own))):
        source = write(tmp_path / f"{name}.parquet", vectors.astype(np.float32))
        code, err = invert(capsys, source, model, tmp_path / f"{name}.jsonl", "--limit", "1", "--strict")
        assert code == 0, err


def fill(capsys, source, model, out, *more) -> tuple[int, str]:  # noqa: F811
    quick = ("--num-tokens", "1", "--num-proposals", "4", "--num-sweeps", "1", "--num-beams", "2")
    given = (source, "--model", model, "--out", out, "--template", "I met <NAME>.", *quick, *more)
    code = main(["fill", *map(str, given)])
    return code, capsys.readouterr().err


@pytest.mark.parametrize("kind, words", [("random", "random numbers"), ("rotated", "another encoder")])
def test_fill_stops_as_invert_does(capsys, model, own, tmp_path, kind, words):  # noqa: F811
    """Names that were made up for another encoder's vectors, with exit status 0 and a warning that scrolled away."""
    source = write(tmp_path / "dump.parquet", foreign(kind, own))
    code, err = fill(capsys, source, model, tmp_path / "filled.jsonl")
    inverted, same = invert(capsys, source, model, tmp_path / "texts.jsonl")
    line = err.splitlines()[-1]
    assert code == inverted == 2 and words in line and not list(tmp_path.glob("filled*"))
    assert line.removeprefix("embinv fill: ") == same.splitlines()[-1].removeprefix("embinv invert: ")


@pytest.fixture(scope="module")
def judging(encoder, model, tmp_path_factory):  # noqa: F811
    """As `model`, with a surrogate, so that it can fill."""
    inverter, tokenizer = load_inverter(model)
    inverter.add_surrogate(2)
    return export(inverter, tokenizer, tmp_path_factory.mktemp("tiny") / "judging")


@pytest.mark.filterwarnings("default")
def test_fill_goes_on_with_force_and_with_few_vectors(capsys, judging, own, tmp_path):
    """A few redacted letters are too little for a judgement, and the owner of a changed store may know better."""
    for name, number, more in (("few", 2, ()), ("many", 50, ("--force", "--batch-size", "16"))):
        source = write(tmp_path / f"{name}.parquet", foreign("rotated", own)[:number])
        code, err = fill(capsys, source, judging, tmp_path / f"{name}.jsonl", *more)
        assert code == 0 and f"wrote {number} texts" in err and ("look like" in err) == (name == "many"), err


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("command", [invert, fill])
@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_the_last_lines_count_the_verdicts(capsys, model, judging, own, tmp_path, command, kind):  # noqa: F811
    """Texts that have nothing to do with their vectors were "wrote 4 texts", as good ones are."""
    source, out = write(tmp_path / "few.parquet", foreign("rotated", own)[:4]), tmp_path / f"out{kind}"
    more = ("--preset", "standard", "--num-corrections", "1") if command is invert else ()
    code, err = command(capsys, source, judging, out, *more)
    lines = err.splitlines()
    assert code == 0 and "wrote 4 texts" in lines[-2] and "4 unrelated" in lines[-2], err
    assert "warning: 4 of 4 texts are unrelated to their vectors" in lines[-1]
    # a template of another text was said to be one that the model cannot write
    assert lines[-1].endswith("texts that this model cannot write" if command is invert else "those of other texts")
    code, err = invert(capsys, source, model, tmp_path / "drafts.jsonl")  # nothing judges them
    assert code == 0 and "unrelated" not in err and err.rstrip().endswith(").")


@pytest.mark.parametrize("texts", [None, ["I met <NAME>."] * 6])
def test_the_pipeline_warns_in_one_line(judging, own, texts):
    """A line for each batch, or one that does not say whose vectors were expected and what these look like."""
    pipe = pipeline("embedding-inversion", model=str(judging), trust_remote_code=True)
    filling = {"texts": texts, "num_tokens": 1, "num_proposals": 4, "num_sweeps": 1, "num_beams": 2}
    for vectors, lines in ((own, 0), (foreign("rotated", own), 1)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            pipe(vectors[::11], batch_size=2, **(filling if texts else {"num_steps": 2}))
        said = [str(one.message) for one in caught if "look like" in str(one.message)]
        assert len(said) == lines
    assert said[0].startswith("this model inverts vectors of sentence-transformers/all-MiniLM-L6-v2; these look like")
    assert "another encoder" in said[0] and "\n" not in said[0]


def said_by(call) -> list[str]:
    """The warnings of a call that say what its vectors look like, each as often as it comes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in caught if "look like" in str(one.message)]


@pytest.mark.parametrize("texts", [None, ["I met <NAME>."] * 6])
@pytest.mark.parametrize("kind, words", [("int8", "whole numbers, as int8"), ("scaled", "sums or differences")])
def test_the_pipeline_says_what_lengths_tell(judging, own, texts, kind, words):
    """It brought vectors to length 1 before anybody looked at them, so that their lengths were never judged."""
    inverter, tokenizer = load_inverter(judging)
    pipe = inverter.eval().as_pipeline(tokenizer)
    vectors = np.rint(400 * own[::11]) if kind == "int8" else own[::11] * np.linspace(2, 5, len(own[::11]))[:, None]
    filling = {"texts": texts, "num_tokens": 1, "num_proposals": 4, "num_sweeps": 1, "num_beams": 2}
    settings = filling if texts else {"num_steps": 2}
    said = said_by(lambda: pipe(vectors, batch_size=2, **settings))
    assert len(said) == 1 and said[0].startswith("this model inverts vectors of") and words in said[0]
    assert said_by(lambda: pipe(own[::11], batch_size=2, **settings)) == []
    if not texts:
        streamed = said_by(lambda: list(pipe(iter(vectors), batch_size=2, **settings)))
        assert len(streamed) == 1 and words in streamed[0]
        assert len(said_by(lambda: list(invert_vectors(inverter, tokenizer, vectors, 2, settings)))) == 1
