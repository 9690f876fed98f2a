"""`embinv audit` as a user runs it, with a tiny checkpoint whose texts are nonsense; of few rows."""

import json

import numpy as np
import pytest
from datasets import Dataset

from modeling_embinv.audit.public import public_sentences
from modeling_embinv.audit.report import FEWEST, SENSITIVE
from modeling_embinv.audit.run import open_work
from modeling_embinv.audit.sample import draw, draw_each, join, some_rows, subset
from modeling_embinv.data.parts import locked
from modeling_embinv.stores.vectors import open_vectors
from tests.audit.conftest import TEXTS, run, write

pytestmark = pytest.mark.usefixtures("remembering")
FIGURES = {"words", "f1", "exact", "cosine"}


def test_a_store_with_texts(capsys, model, store, tmp_path):
    """From a file to a report: every row keeps its id, every figure its floors, and the exit status its promise."""
    columns = ("--column", "embedding", "--text-column", "body", "--id-column", "ticket")
    out = tmp_path / "report"
    guesses = tmp_path / "guesses.txt"
    guesses.write_text(f"{TEXTS[0]}\nseven whales sang at night\n", encoding="utf-8")
    code, printed, err = run(
        capsys, store, *columns, "--model", model, "--out", out, "--limit", 6, "--encoder-limit", 2, "--candidates",
        guesses, "--fail-over", "words=1,exact=0.5", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    assert len(printed.splitlines()) <= 14 and "severity" in printed
    begun = [line.removeprefix("embinv: ").removesuffix(" …") for line in err.splitlines() if line.endswith(" …")]
    assert begun == [
        "reading the store", "loading the checkpoint", f"comparing 2 guesses with {len(TEXTS)} vectors",
        "inverting 6 vectors (vectors)", "embedding 600 texts", "inverting 2 vectors (encoder)",
        "inverting 8 vectors (control-encoder)",
    ]  # fmt: skip
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["origin"]["fits"] and report["sample"]["rows"] == 6 and report["source"]["rows"] == len(TEXTS)
    assert [tier["rows"] for tier in report["tiers"]] == [6, 2]
    assert set(report["tiers"][0]["figures"]) == FIGURES and len(report["tiers"][0]["figures"]["words"]["floors"]) == 2
    assert any("8 vectors" in note for note in report["warnings"])
    rows = [json.loads(line) for line in (out / "hits.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["id"] for row in rows} <= {f"T-{row}" for row in range(len(TEXTS))} and len(rows) == 8
    assert all(row["id"] == f"T-{row['row']}" and set(row["text"]) <= {"▇", " "} for row in rows)
    assert {path.name for path in out.iterdir()} == {"index.html", "report.json", "hits.jsonl", "report.sarif"}
    first, second = report["guesses"]["ranking"]
    assert first["cosine"] > second["cosine"] and set(first["text"]) <= {"▇", " "} and not second["is_alarm"]


def test_a_chroma_folder(capsys, model, vectors, tmp_path):
    """Chroma's own ids and documents are found without a flag for either."""
    chromadb = pytest.importorskip("chromadb")
    quiet = chromadb.config.Settings(anonymized_telemetry=False)
    client = chromadb.PersistentClient(str(tmp_path / "store"), settings=quiet)
    names = [f"T-{row}" for row in range(len(TEXTS))]
    collection = client.create_collection("support", embedding_function=None)
    collection.add(ids=names, embeddings=vectors.tolist(), documents=TEXTS)
    arguments = ("--model", model, "--no-encoder", "--limit", 3, "--out", tmp_path / "r")
    code, printed, err = run(capsys, f"chroma:{tmp_path / 'store'}", "--collection", "support", *arguments)
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "r" / "hits.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 3 and all(row["id"] in names and row["words"]["of"] for row in rows)
    assert "scored against the store's texts" in printed


def test_over_the_threshold(capsys, model, store, tmp_path):
    """The gate of a pipeline: 3 is neither a success nor a mistake in the command."""
    arguments = (
        store,
        "--model",
        model,
        "--text-column",
        "body",
        "--limit",
        3,
        "--no-encoder",
        "--out",
        tmp_path / "r",
    )
    assert run(capsys, *arguments, "--fail-over", "f1=1")[0] == 0
    # looked for, and none is there: the gate of a store without money must not end as a mistake
    code, printed, err = run(capsys, *arguments, "--fail-over", "money=0.5")
    assert code == 0 and "no entity of kind money" in printed, err
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert report["thresholds"]["fail_over"] == {"money": {"limit": 0.5, "over": False}}
    value = report["tiers"][0]["figures"]["f1"]["value"]
    if value:
        assert run(capsys, *arguments, "--fail-over", f"f1={value / 2}")[0] == 3


def test_a_store_without_texts(capsys, model, vectors, tmp_path):
    """Nothing to score against is no reason to say nothing; the report says that it estimates."""
    source = write(tmp_path / "bare.parquet", vectors[:3])
    code, printed, err = run(capsys, source, "--model", model, "--out", tmp_path / "r", "--no-encoder", "--seed", 1)
    assert code == 0, err
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert "an estimate" in printed and "estimate" in (tmp_path / "r" / "index.html").read_text(encoding="utf-8")
    assert report["planted"][0]["figures"]["words"]["count"] > 50 and not report["tiers"][0]["figures"]
    assert report["tiers"][0]["expected_token_accuracy"] is not None
    kinds = report["planted"][0]["kinds"]
    assert all(
        kinds[kind]["whole"]["count"] >= FEWEST and len(kinds[kind]["whole"]["floors"]) == 2 for kind in SENSITIVE
    )
    assert set(report["kinds_found_by"]) == {"planted secrets"} and "credentials 0/10 (floor 0/10)" in printed


def test_a_column_of_empty_texts_is_named(capsys, model, vectors, tmp_path):
    """Texts that are all null were none, without a word of the column that had been taken for theirs."""
    source = write(tmp_path / "bare.parquet", vectors[:3, :5], text=["", " ", "\t"], body=TEXTS[:3])
    code, _, err = run(capsys, source, "--model", model, "--out", tmp_path / "r")
    assert code == 2  # vectors of five numbers
    assert f"{source}: the texts in column 'text' are all empty" in err
    assert "all empty" not in run(capsys, source, "--text-column", "body", "--model", model, "--out", tmp_path)[2]


def test_defences_are_tried_on_the_store(capsys, model, vectors, tmp_path):
    """A rotation that spoils search, or noise that costs nothing, is one that was applied to the wrong side."""
    many = np.concatenate([vectors, vectors @ np.diag(np.sign(np.arange(384) % 7 - 0.5))]).repeat(2, axis=0)
    many += 0.01 * np.random.default_rng(0).standard_normal(many.shape).astype(np.float32)
    source = write(tmp_path / "many.parquet", many, text=TEXTS * 4)
    arguments = (source, "--model", model, "--force", "--no-encoder", "--limit", 3, "--out", tmp_path / "r")
    code, printed, err = run(capsys, *arguments, "--defences", "noise,int8,rotation")
    assert code == 0, err
    defences = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))["defences"]
    by_name = {one["name"]: one for one in defences["results"]}
    assert by_name["none"]["utility"] == by_name["secret rotation"]["utility"] == {"recall": 1, "ndcg": 1}
    assert by_name["int8"]["utility"]["recall"] > by_name["noise 0.05"]["utility"]["recall"]
    assert by_name["int8"]["cosine"] > 0.99 > by_name["noise 0.05"]["cosine"]
    assert abs(by_name["secret rotation"]["cosine"]) < 0.3 and defences["pairs"] and "recall@10" in printed
    few = write(tmp_path / "few.parquet", vectors, text=TEXTS)
    code, _, err = run(capsys, few, *arguments[1:-1], tmp_path / "few", "--defences", "int8")
    assert code == 2 and "more than 10" in err


def test_known_pairs_break_a_rotated_store(capsys, model, encoder, vectors, tmp_path):
    """A secret rotation looks like a perfect defence, until somebody knows texts of the store."""
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((384, 384)))[0]
    known = [*public_sentences()[:500], *TEXTS]
    source = write(tmp_path / "dump.parquet", np.tile(vectors @ turn, (20, 1)), text=TEXTS * 20)
    pairs = write(tmp_path / "pairs.parquet", encoder.encode(known).numpy() @ turn, text=known)
    arguments = (source, "--model", model, "--limit", 3, "--encoder-limit", 2, "--out", tmp_path / "r")
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "rotated" in err and "--pairs" in err
    code, printed, err = run(capsys, *arguments, "--pairs", pairs)
    assert code == 0, err
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    taught = report["pairs"]
    assert taught["map"].startswith("rotation") and taught["cosine"] > 0.95
    rows = [json.loads(line)["row"] for line in (tmp_path / "r" / "hits.jsonl").read_text("utf-8").splitlines()]
    assert taught["known"] == 508 - len({row % 8 for row in rows})  # none of the texts that are attacked
    by_name = {tier["name"]: tier for tier in report["tiers"]}
    assert by_name["pairs"]["rows"] == 2 and not report["origin"]["fits"]
    assert "known pairs teach" in printed and "cosine of" in (tmp_path / "r" / "index.html").read_text("utf-8")
    few = write(tmp_path / "few.parquet", vectors, text=TEXTS)
    code, _, err = run(capsys, *arguments, "--pairs", few)
    assert code == 2 and "at least 20" in err and "inverting" not in err  # an attack that would be for nothing
    narrow = write(tmp_path / "narrow.parquet", np.ones((60, 30), np.float32), text=known[:60])
    code, _, err = run(capsys, *arguments, "--pairs", narrow)
    assert code == 2 and "numbers" in err


def test_a_killed_re_training_resumes(capsys, model, encoder, vectors, tmp_path, monkeypatch):
    """An attacker who trains on defended vectors takes minutes for each defence: nothing of it may be lost."""
    from modeling_embinv.training import known_pairs
    from modeling_embinv.training.loop import Run

    monkeypatch.setattr(known_pairs, "SAVE_STEPS", 1)
    update, steps = Run.update, []

    def killed(self, step, causal=False):
        steps.append(step)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return update(self, step, causal)

    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(public_sentences()[:40]), encoding="utf-8")
    # more than ten different vectors, which search needs
    many = np.concatenate([vectors, vectors @ np.diag(np.sign(np.arange(384) % 7 - 0.5))]).astype(np.float32)
    source = write(tmp_path / "dump.parquet", many, text=TEXTS * 2)
    arguments = (
        source, "--model", model, "--force", "--limit", 2, "--out", tmp_path / "r",
        "--defences", "binary", "--train-texts", texts, "--train-steps", 3, "--tiers", "vectors",
    )  # fmt: skip
    monkeypatch.setattr(Run, "update", killed)
    code, _, err = run(capsys, *arguments)
    assert code == 130 and "resume" in err
    code, printed, err = run(capsys, *arguments)
    assert code == 0, err
    assert steps == [0, 1, 1, 2]
    assert "mixed precision" not in printed  # what training says goes to stderr
    defences = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))["defences"]
    bare, signs = defences["results"]
    assert set(bare["attacks"]) == {"released"} and {"released", "re-trained"} <= set(signs["attacks"])
    assert defences["known"] == 40 and 0.5 < signs["labelled"]["recall"] < bare["labelled"]["recall"] + 0.02
    assert 0.7 < bare["labelled"]["recall"] < 0.95  # the encoder's own: a set on which all is right shows no loss
    assert signs["aligned"] >= signs["cosine"] - 0.02 and not (tmp_path / "r" / ".unfinished").exists()


def test_samples_of_two_sizes_are_drawn_in_one_pass(store):
    """The rows that are attacked must be those of an audit without defences."""
    source = open_vectors(store, "embedding", "ticket", "body")
    few, many = draw_each(source, [3, 6], 0)
    assert set(few.rows) < set(many.rows) and len(many.rows) == 6
    alone = draw(source, 3, 0)
    assert (few.rows == alone.rows).all() and few.texts == alone.texts and (few.vectors == alone.vectors).all()


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_an_interrupted_audit_resumes(capsys, model, store, tmp_path, monkeypatch):
    """Hours of inversion were lost to a Ctrl-C, or another audit's texts were taken over."""
    import modeling_embinv.audit.run as steps

    out = tmp_path / "r"
    arguments = (store, "--model", model, "--text-column", "body", "--limit", 4, "--no-encoder", "--out", out)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "fill_sample", interrupt)
        patch.setattr(steps, "Outcome", interrupt)
        code, _, err = run(capsys, *arguments)
    assert code == 130 and "resume" in err and (out / ".unfinished" / "vectors.jsonl").exists()
    code, _, err = run(capsys, *arguments)
    assert code == 0 and "going on" in err and "other" not in err and not (out / ".unfinished").exists()
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["tiers"][0]["seconds"] is None  # the texts are the first run's


def test_one_vector_is_no_plural(capsys, model, store, tmp_path):
    """A stage was called "inverting 1 vectors"."""
    guesses = tmp_path / "guesses.txt"
    guesses.write_text("a guess\n", encoding="utf-8")
    arguments = ("--model", model, "--text-column", "body", "--out", tmp_path / "r", "--candidates", guesses)
    code, _, err = run(capsys, store, *arguments, "--limit", 1, "--encoder-limit", 1)
    assert code == 0 and "inverting 1 vector (vectors) …" in err and "comparing 1 guess with 8 vectors …" in err
    assert "1 vectors" not in err and "1 guesses" not in err


def test_figures_are_printed_where_no_file_can_be_written(capsys, model, store, tmp_path):
    """Hours of an audit ended with a full disk, and not even its dozen lines were shown."""
    (tmp_path / "r" / "report.json").mkdir(parents=True)
    arguments = ("--model", model, "--text-column", "body", "--limit", 2, "--no-encoder", "--out", tmp_path / "r")
    code, printed, err = run(capsys, store, *arguments)
    assert code == 2 and "report.json" in err.splitlines()[-1]
    assert "content words" in printed and "severity" in printed.splitlines()[-1]
    (tmp_path / "r" / "report.json").rmdir()
    code, printed, err = run(capsys, store, *arguments)
    assert code == 0 and "going on" in err and printed.count("severity") == 1


def test_a_resumed_audit_notices_other_columns(capsys, model, vectors, tmp_path, monkeypatch):
    """With another --text-column the gaps filled in the first one's texts stood in the report of the second."""
    import modeling_embinv.audit.run as steps

    source = write(tmp_path / "dump.parquet", vectors, ticket=TEXTS, body=TEXTS, notes=TEXTS[::-1])
    out = tmp_path / "r"
    arguments = (source, "--model", model, "--limit", 2, "--no-encoder", "--out", out, "--text-column")
    with monkeypatch.context() as patch:
        patch.setattr(steps, "Outcome", interrupt)  # the last step: all else is done
        assert run(capsys, *arguments, "body")[0] == 130
    code, _, err = run(capsys, *arguments, "notes")
    (line,) = [line for line in err.splitlines() if "another audit" in line]
    assert code == 0 and "(other: texts of the sample, --text-column)" in line and "going on" not in err
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["tiers"][0]["seconds"] is not None
    sample = draw(open_vectors(source, "embedding", "ticket", "body"), 2, 0)
    assert open_work(tmp_path / "w", sample, {"--column": ["a"]}) == (False, [])
    assert open_work(tmp_path / "w", sample, {"--column": ["a"]}) == (True, [])
    assert open_work(tmp_path / "w", sample, {"--column": ["b"]}) == (False, ["--column"])


def test_a_resumed_audit_notices_other_texts_of_known_rows(capsys, model, encoder, vectors, tmp_path, monkeypatch):
    """The map that was fitted with the old texts of --pairs stood in the report of the new ones."""
    import modeling_embinv.audit.run as steps

    known = public_sentences()[:60]
    source, file = write(tmp_path / "dump.parquet", vectors), tmp_path / "pairs.parquet"
    pairs = write(file, encoder.encode(known).numpy(), text=known)
    arguments = (source, "--model", model, "--limit", 1, "--tiers", "pairs", "--out", tmp_path / "r", "--pairs", pairs)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "Outcome", interrupt)
        assert run(capsys, *arguments)[0] == 130
    write(file, encoder.encode(known).numpy(), text=known[::-1])
    code, _, err = run(capsys, *arguments)
    assert code == 0 and "another audit (other: --pairs)" in err


def test_a_second_audit_is_refused_while_the_first_runs(capsys, model, store, tmp_path):
    """An audit of another store with the same --out deleted the work of the first."""
    out = tmp_path / "r"
    with locked(out):
        code, _, err = run(capsys, store, "--model", model, "--limit", 2, "--no-encoder", "--out", out)
    assert code == 2 and err.splitlines()[-1].endswith(
        "r: another run is writing there. Wait for its end, or choose another output."
    )
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    "case, words",
    [
        ("rotated", "rotated"), ("narrow", "384"), ("column", "no column 'nothing'"), ("bad", "usable vector"),
        ("empty", "no vectors"), ("file", "is a file"), ("threshold", "figures: words"), ("defence", "unknown"),
        ("candidates", "no such file"), ("pairs", "no such file"), ("train_texts", "no such file"),
        ("untrained", "contradicts --train-steps 0"), ("train_steps_alone", "--pairs"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(capsys, model, vectors, tmp_path, case, words):
    """Rotated vectors came back as fluent nonsense with status 0; a mistake came to light after the attack."""
    turned = vectors @ np.linalg.qr(np.random.default_rng(0).standard_normal((384, 384)))[0]
    many = np.tile(turned, (10, 1)) if case == "rotated" else vectors
    kept = {"narrow": many[:, :300], "bad": np.zeros((3, 384)), "empty": many[:0]}.get(case, many)
    source = write(tmp_path / "dump.parquet", kept.astype(np.float32))
    out = source if case == "file" else tmp_path / "r"
    more = {
        "column": ("--column", "nothing"), "threshold": ("--fail-over", "word=0.1"), "defence": ("--defences", "x"),
        "candidates": ("--candidates", tmp_path / "none.txt"),
        "pairs": ("--pairs", tmp_path / "none.parquet"),
        "train_texts": ("--defences", "int8", "--train-texts", tmp_path / "none.txt"),
        "train_steps_alone": ("--train-steps", 5),
        "untrained": ("--tiers", "subject", "--train-texts", tmp_path / "dump.parquet", "--train-steps", 0),
    }.get(case, ())  # fmt: skip
    code, printed, err = run(capsys, source, "--model", model, "--out", out, *more)
    assert code == 2 and words in err.splitlines()[-1] and not printed
    assert not (tmp_path / "r").exists()


def test_a_sample_is_drawn_by_its_seed(store):
    """The first rows of a store are its oldest; a sample that changes cannot be compared."""
    source = open_vectors(store, "embedding", "ticket", "body")
    samples = [draw(source, 3, seed) for seed in (0, 0, 1, 2, 3)]
    assert (samples[0].rows == samples[1].rows).all() and samples[0].digest == samples[4].digest
    assert len({tuple(one.rows) for one in samples}) > 1
    for one in samples:
        assert one.ids == [f"T-{row}" for row in one.rows] and one.texts == [TEXTS[row] for row in one.rows]
    assert (draw(source, 100, 0).rows == np.arange(len(TEXTS))).all() and draw(source, 3, 0).total == len(TEXTS)
    assert len(set(subset(10, 4, 0))) == 4 and (subset(3, 9, 1) == np.arange(3)).all()


def test_rows_without_a_text_are_drawn_last(vectors, tmp_path):
    """Of a store with few texts most of the sample could not be scored, and its intervals said nothing."""
    texts = [None, TEXTS[1], "  ", TEXTS[3], *[""] * (len(vectors) - 4)]
    source = open_vectors(write(tmp_path / "v.parquet", vectors, text=texts), text_column="text")
    few = {tuple(draw(source, 1, seed).rows) for seed in range(9)}
    assert few == {(1,), (3,)}
    for seed in (0, 1):
        two, four = draw_each(source, [2, 4], seed)
        assert two.rows.tolist() == [1, 3] and set(two.rows) < set(four.rows) and two.num_texts == four.num_texts == 2
    assert all(four.take(some_rows(four, 2, seed)).rows.tolist() == [1, 3] for seed in range(9))
    joined = join({"a": four, "b": two}, 4, 0)
    assert joined.rows.tolist() == [1, 3] * 2 and joined.num_texts == 4


def test_line_separators_in_ids_end_no_line(capsys, model, vectors, tmp_path):
    """U+2028 in an id ended the audit after the attack, and every time that it was resumed."""
    names = [f"T\u2028{row}\x85\u2029" for row in range(len(TEXTS))]
    source = write(tmp_path / "dump.parquet", vectors, id=names, text=TEXTS)
    arguments = ("--model", model, "--tiers", "vectors", "--limit", 2, "--out", tmp_path / "r")
    code, _, err = run(capsys, source, *arguments)
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "r" / "hits.jsonl").read_text("utf-8").split("\n")[:-1]]
    assert len(rows) == 2 and all(row["id"] == names[row["row"]] for row in rows)


@pytest.mark.parametrize(
    "case", ["report", "link", "new", "unfinished", "pairs", "candidates", "folder", "below", "store"]
)
def test_what_is_read_is_never_replaced(capsys, model, vectors, tmp_path, case):
    """An audit of rows that lay in the folder of its report ended with the hits in their place."""
    out, store = tmp_path / "r", tmp_path / "other.parquet"
    write(store, vectors, text=TEXTS)
    place = {"unfinished": out / ".unfinished" / "d.jsonl", "below": tmp_path / "d", "folder": out, "store": out}
    path = place.get(case, out / "hits.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    if case in ("folder", "below", "store"):
        Dataset.from_dict({"embedding": vectors.tolist(), "text": TEXTS}).save_to_disk(str(path))
    else:
        path.write_text("".join(json.dumps({"embedding": row.tolist(), "text": "a"}) + "\n" for row in vectors))
    before = {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()}
    source, more = path, ()
    if case == "link":
        source = tmp_path / "link.jsonl"
        source.symlink_to(path)
    if case in ("pairs", "candidates"):
        source, more = store, (f"--{case}", path)
    if case == "store":
        source = f"chroma:{path}"
    out = {"below": path / "deep" / "r", "new": out / "new" / ".."}.get(case, out)
    code, printed, err = run(capsys, source, "--model", model, "--limit", 1, "--out", out, *more)
    assert code == 2 and not printed and "--out" in err.splitlines()[-1] and "another folder" in err.splitlines()[-1]
    assert {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file() and not one.is_symlink()} == before
