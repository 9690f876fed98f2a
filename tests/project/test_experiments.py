"""The experiments' files: what their tables need before hours of training are spent on them."""

import json
import lzma
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, get_args, get_origin

import numpy as np
import pytest
import torch
import yaml

from modeling_embinv import EmbInvGenerationConfig
from modeling_embinv.audit.sample import Sample
from modeling_embinv.data.encoder_config import packaged_yaml
from modeling_embinv.gap_states_embinv import EXACT
from modeling_embinv.generation_config_embinv import Calibration
from modeling_embinv.training.config import TrainingConfig
from modeling_embinv.training.flops import operation_counter
from modeling_embinv.verdicts_embinv import verdict_of
from tests.tiny_models import END, MASK, VOCAB, awaken, tiny_model, unit_vectors

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments"

EXPERIMENTS = [path for path in sorted(FOLDER.glob("*.yaml")) if "variants" in yaml.safe_load(path.read_text())]


@pytest.mark.parametrize("scale", ["reduced", "full"])
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_variant_is_a_training_run_of_its_own(path, scale):
    """A misspelt flag or value would be found only after the variants before it were trained.

    A flag that reaches no setting would train one variant twice.
    """
    from run import variant_config

    experiment = yaml.safe_load(path.read_text())
    configs = [variant_config(experiment, variant, scale) for variant in experiment["variants"]]
    assert len({config.output_dir for config in configs}) == len(configs) > 2
    for config in configs:
        assert (ROOT / config.encoder).is_file() or packaged_yaml(config.encoder)
        for entry in fields(config):
            assert get_origin(entry.type) is not Literal or getattr(config, entry.name) in get_args(entry.type)


def test_experiments_share_what_they_have_in_common():
    """`baseline` and `all layers` are one run: named by variant, it would be trained twice."""
    from run import variant_config

    runs = [
        variant_config(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()), variant, "reduced").output_dir
        for name, variant in (("choices", "baseline"), ("depth", "all layers"), ("choices", "3 layers of 384"))
    ]
    assert runs[0] == runs[1] != runs[2]


def test_methods_of_the_quality_cost_curve_are_settings_of_generate():
    """A misspelt setting would be found an hour too late; a method that is gone would keep its row."""
    from tables import table

    experiment = yaml.safe_load((FOLDER / "quality_cost.yaml").read_text())
    methods = experiment["methods"] | experiment["ablations"]
    for settings in methods.values():
        own = {name: value for name, value in settings.items() if name not in ("feedback", "int8", "threads")}
        EmbInvGenerationConfig(**own)
    for length, rows in json.loads((FOLDER / "results" / "quality_cost.json").read_text()).items():
        assert rows and set(rows) <= set(methods)
        lines = table({"of": f"quality_cost | {length}"}).splitlines()
        assert len(lines) == 2 + len(rows) and len({line.count("|") for line in lines}) == 1


def test_every_method_has_its_place_in_the_plot(tmp_path):
    """The twenty-first method had no colour, and an hour of measuring ended in a KeyError."""
    import quality_cost

    found = json.loads(quality_cost.RESULTS.read_text())
    rows = next(iter(found.values()))
    many = {f"method {number}": row for number, row in enumerate([*rows.values()] * 3)}
    quality_cost.plot({**found, "many": many}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_hidden_words_are_plotted_from_what_is_measured(tmp_path):
    """Rows that are not measured yet ended the plot in an error; a row of another name has no point in it."""
    import fill_plot

    found = json.loads((FOLDER / "results" / "fill.json").read_text())
    assert fill_plot.numbered(found["gaps"]["rows"], r"(\d+) gaps?, encoder").keys() >= {1, 2}
    few = {name: {"rows": {}} for name in ("gaps", "floors", "lengths")}
    for results in (found, few):
        fill_plot.plot(results, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").stat().st_size > 5_000


def test_pilots_are_training_runs_whose_stages_add_up():
    """A misspelt setting would be found after the variants before it; the encoder's file was not where it had been.

    Stages that spend more than the whole are no pilot at equal operations.
    """
    import pilots

    assert packaged_yaml(pilots.SETTINGS["encoder"])
    assert len({pilots.run_folder(name, 0) for name in pilots.VARIANTS}) == len(pilots.VARIANTS)
    for stages in pilots.VARIANTS.values():
        assert sum(part for part, _ in stages) == 1
        for _, settings in stages:
            TrainingConfig(output_dir="out", init_from="start", **{**pilots.SETTINGS, **settings})


def test_pilots_count_what_muon_computes():
    """At equal operations an update by Muon must count its own products, which are nearly those of a small batch."""
    import pilots

    model = tiny_model()
    matrices = [weight for weight in model.trunk.layers.parameters() if weight.ndim == 2]
    for weight in matrices:
        weight.grad = torch.ones_like(weight)
    with operation_counter() as counter:
        torch.optim.Muon(matrices).step()
    assert pilots.muon_operations(model) == counter.get_total_flops() > 0


def test_a_learning_curve_is_drawn_out():
    """A fit of the wrong logarithm would promise gains that no training brings."""
    from extrapolate import extrapolated

    texts = np.array([1e6, 4e6, 1e7])
    loss = 3 * texts**-0.2
    found = extrapolated(texts, loss, 50 - 20 * loss)
    assert found["exponent"] == pytest.approx(-0.2)
    assert found["ten times as many"] == pytest.approx(3 * 1e8**-0.2)
    assert found["BLEU, ten times as many"] == pytest.approx(50 - 60 * 1e8**-0.2)


def test_pilots_table_has_a_line_for_every_method():
    """A model that knows one order has fewer methods and losses than the others."""
    from tables import table

    rows = json.loads((FOLDER / "results" / "pilots.json").read_text())["rows"]
    lines = table({"of": "pilots", "methods": True}).splitlines()
    assert len(lines) == 2 + sum(len(row["scores"]) for row in rows.values())
    assert len({line.count("|") for line in lines}) == 1


def test_hidden_words_are_those_that_the_marks_hide():
    """A span that is off by one hides half a word, and the measured recall is of something else."""
    import gap_picture
    from fill import Hidden

    text = Hidden("The red dog saw a red kite.", [(4, 7), (22, 26)])
    assert text.redacted == "The ▇▇▇ dog saw a red ▇▇▇." and text.words == ["red", "kite"]
    assert gap_picture.hidden({"redacted": text.redacted, "sentence": text.text}) == text.words
    end = {"redacted": "The red dog saw a ▇▇▇", "sentence": text.text}
    assert gap_picture.hidden(end) == ["red kite."]


def test_rows_of_fillings_get_their_calibration_afterwards():
    """The error of other probabilities than those that users see, or a text that is likely far from its vector."""
    from fill import finished

    near, far = {"verdict": "undecided", "cosine": 0.97}, {"verdict": "undecided", "cosine": 0.6}
    row = {"filled": [{**near, "p": [0.5], "right": [True]}, {**far, "p": [0.5], "right": [False]}]}
    done = finished(row, Calibration(bias=20.0), "encoder")
    assert done["verdicts"] == {"likely": [1, 1], "unrelated": [0, 1]} and done["ECE %"] == pytest.approx(0, abs=1e-3)
    plain = finished(row, Calibration(), "encoder")
    assert plain["verdicts"] == {"undecided": [1, 1], "unrelated": [0, 1]} and plain["ECE %"] == pytest.approx(25)


@pytest.mark.parametrize("is_exact", [False, True])
def test_measured_probabilities_are_those_that_fill_gives(is_exact):
    """The published error was of other probabilities: `fill` calibrates none down where the cosine is exact."""
    from fill import calibrated

    row = [7, 12, 30, 9, 21, 44, 8]
    model = awaken(tiny_model())
    table = unit_vectors(VOCAB, seed=5).index_fill(0, torch.tensor([END]), 0.0)
    encode = lambda ids: torch.nn.functional.normalize(table[ids].sum(dim=1), dim=-1)  # noqa: E731
    target = encode(torch.tensor([row]))
    if not is_exact:
        target = torch.nn.functional.normalize(target + 0.3 * unit_vectors(1, seed=4), dim=-1)
    found, weights = {}, {"probability": 0.5, "length": 0.1, "nearness": 0.2, "bias": -2.0}
    for name, calibration in (("plain", {}), ("fitted", {"fill_encoder": weights})):
        model.generation_config = type(model.generation_config)(calibration=calibration)
        (found[name],) = model.fill(target, [[*row[:2], MASK, *row[3:5], MASK, row[6]]], feedback=encode).texts
    plain, fitted = ([gap.probability for gap in found[name].gaps] for name in ("plain", "fitted"))
    text = {"p": plain, "cosine": found["plain"].cosine, "tokens": len(row)}
    assert (text["cosine"] >= EXACT) == is_exact == (plain == fitted)
    assert calibrated(text, Calibration(**weights), "encoder").tolist() == pytest.approx(fitted)


@pytest.mark.parametrize("judge", ["surrogate", "encoder"])
def test_verdicts_say_what_was_measured(judge):
    """A text that is called exact and is not, or the gist of a vector that is another encoder's."""
    rows = json.loads((FOLDER / "results" / "verdicts.json").read_text())["rows"]
    by_verdict: dict[str, list[dict]] = {}
    for row in rows:
        by_verdict.setdefault(verdict_of(row[judge], judge), []).append(row)
    assert all(row["run"] == "another encoder's" for row in by_verdict.pop("unrelated"))
    assert all(row["run"] == "texts" for found in by_verdict.values() for row in found)
    surest = by_verdict["verified" if judge == "encoder" else "likely"]
    assert len(surest) >= 5 and all(row["exact"] for row in surest)
    share = {
        verdict: sum(row["recovered"] for row in found) / sum(row["words"] for row in found)
        for verdict, found in by_verdict.items()
    }
    assert 0.35 < share["gist"] < 0.55 < 0.65 < share["close"]


def test_defences_become_a_table(monkeypatch):
    """A defence that an attacker was not tried on must leave a gap, not a zero; a column that nobody fills goes."""
    import measured
    from defences import tables
    from tables import table

    from modeling_embinv.audit.defences import DefenceReport, DefenceResult
    from modeling_embinv.audit.figures import Figure
    from modeling_embinv.audit.retrieval import Utility

    share = Figure(0.5, 0.4, 0.6, 5, 10)
    bare = DefenceResult("none", "none", Utility(1, 1), None, {"released": share}, 1.0, None)
    signs = DefenceResult("signs", "binary", Utility(0.75, 0.8), None, {"released": share, "adapted": share}, 0.6, 0.9)
    made = json.loads(json.dumps(tables(DefenceReport([bare, signs], 10, 900, 40, [(24, 0.5)], {}))))
    assert (
        "re-trained %" not in made["defences"]["columns"] and "labelled recall@10" not in made["defences"]["columns"]
    )
    monkeypatch.setattr(measured, "results", lambda name: made)
    printed = table({"of": "defences | defences"}).splitlines()
    assert printed[0] == "|  | recall@10 | nDCG@10 | cosine | after the map | released % | adapted % |"
    assert printed[2] == "| none | 1 | 1 | 1 |  | 50 [40, 60] |  |"
    assert printed[3] == "| signs | 0.75 | 0.8 | 0.6 | 0.9 | 50 [40, 60] | 50 [40, 60] |"


def test_vectors_are_kept_for_their_own_texts(tmp_path):
    """After a change of the corpus the vectors of other texts were searched and attacked."""
    from kept_vectors import kept_vectors

    embedded = []

    def encode(texts):
        embedded.append(texts)
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    for texts in (["a", "bc"], ["a", "bc"], ["a", "bcd"]):
        assert kept_vectors(tmp_path / "new", "store", texts, encode).tolist() == [[len(text), 1] for text in texts]
    assert embedded == [["a", "bc"], ["a", "bcd"]]
    kept_vectors(tmp_path / "new", "another encoder", ["a", "bc"], encode)
    assert len(embedded) == 3 and len(list((tmp_path / "new").iterdir())) == 3, "nothing unfinished is left"


def test_other_weights_are_attacked_anew(tmp_path):
    """The folder's name stays when weights change: the attacks of the old weights were reported as the new ones'."""
    from defences import Bench

    class Weighed(Bench):
        def __init__(self, checksum):
            self.work, self.model = tmp_path, SimpleNamespace(config=SimpleNamespace(checksums={"weights": checksum}))
            self.experiment = {"train_steps": 0, "model": "checkpoint", "int8": True}

    sample = Sample(unit_vectors(2).numpy(), np.arange(2), None, ["a", "b"], 2, "digest")
    Weighed("old").begin(sample, tmp_path / "store")
    (tmp_path / "store" / "found.json").write_text("{}")
    Weighed("old").begin(sample, tmp_path / "store")
    assert (tmp_path / "store" / "found.json").exists()
    Weighed("new").begin(sample, tmp_path / "store")
    assert not (tmp_path / "store" / "found.json").exists()


def test_a_variant_is_scored_again_on_more_texts(tmp_path, monkeypatch):
    """`--texts 800` after `--texts 400` showed the scores of 400."""
    import run

    scored = []

    def score(config, count):
        scored.append(count)
        return {"texts": min(count, 500)}

    monkeypatch.setattr(run, "train", lambda config: None)
    monkeypatch.setattr(run, "validation_texts", lambda config, folder, texts_of, count: count)
    monkeypatch.setattr(run, "score", score)
    config = TrainingConfig(output_dir=str(tmp_path), encoder="minilm", pairs="pairs", backbone="encoder")
    for texts in (400, 400, 800, 800):
        run.run_variant(config, "variant", config, texts, rescore=False)
    assert scored == [400, 800]


def test_texts_of_the_corpus_are_left_out_elsewhere(tmp_path):
    """A text that was trained on, inside a longer line or with other marks, would make other collections look easy."""
    from elsewhere import known

    lines = "He said: “The cat sat, on the mat” today.\nWho was he?\n"
    (tmp_path / "part.txt.xz").write_bytes(lzma.compress(lines.encode()))
    there = {"the cat sat on the mat", "Who was he ?", "was he"}
    others = {"the cat sat on the hat", "The cat sat on the mat yesterday", "today who was he"}
    assert known(there | others, tmp_path) == there
