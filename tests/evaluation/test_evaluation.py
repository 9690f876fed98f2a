"""Measures, intervals, and floors against values known by other means."""

import io
import json
import re

import numpy as np
import pytest
import sacrebleu
import torch
from datasets import Dataset
from rich.console import Console

from modeling_embinv import EmbInvError
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import AbsentEncoder
from modeling_embinv.diffusion_embinv import Canvas
from modeling_embinv.evaluation import metrics
from modeling_embinv.evaluation.calibration import calibration_report
from modeling_embinv.evaluation.held_out import HeldOut, Measures, Score
from modeling_embinv.evaluation.plots import save_plots
from modeling_embinv.evaluation.report import COLUMNS, Report, Row, cells, evaluate, markdown, sweep
from modeling_embinv.progress.bar import RowBar
from modeling_embinv.sampler_embinv import Sampler
from modeling_embinv.settings_embinv import SearchSettings
from tests.hub.tiny_folder import new_tiny_inverter
from tests.tiny_models import unit_vectors

OURS = ["the cat sat on a mat today", "a b c d e", "completely different words here now", "one two three four five"]
THEIRS = ["the cat sat on the mat", "a b c d e", "nothing of the kind was said", "one two three four six"]
END = 102


class Fluent:
    """A model in the shape that `HeldOut` needs, which writes the row of ids whose vector it is given."""

    class config:
        eos_token_id, vocab_size, max_sequence_length = END, 30000, 6

    def __init__(self, ids, vectors):
        self.ids, self.vectors = ids, vectors

    def generate(self, embeddings, guidance_scale=1.0, num_steps=8, **_):
        from modeling_embinv.generation_embinv import EmbInvGenerationOutput

        best = (embeddings @ self.vectors.T).argmax(dim=1)
        ids = self.ids[best] if guidance_scale else torch.full((len(embeddings), 6), END)
        return EmbInvGenerationOutput(ids, torch.full(ids.shape, 0.9), num_steps)


def held_out_of(encoder, texts):
    """Held-out texts of a model that writes each of them from its vector."""
    model = Fluent(None, None)
    held, _ = HeldOut.of_texts(model, encoder.tokenizer, encoder, texts)
    model.ids, model.vectors = held.input_ids, held.embeddings
    return held


@pytest.fixture
def held_out(encoder):
    return held_out_of(encoder, ["a red kite", "two men talk", "the sea", "my cat sleeps all day"])


@pytest.fixture
def inverted(monkeypatch) -> list[int]:
    """Counts the vectors of each batch that the sampler writes texts for."""
    counts, run = [], Sampler.run

    def counted(sampler: Sampler) -> Canvas:
        counts.append(len(sampler.embeddings))
        return run(sampler)

    monkeypatch.setattr(Sampler, "run", counted)
    return counts


def test_bleu_of_summed_counts_is_sacrebleu():
    """Intervals resample counts: another smoothing or order than sacrebleu's would shift them off the figure."""
    counts = metrics.bleu_counts(OURS, THEIRS)
    assert metrics.bleu_of_counts(counts.sum(axis=0)) == pytest.approx(sacrebleu.corpus_bleu(OURS, [THEIRS]).score)
    for row, (ours, theirs) in enumerate(zip(OURS, THEIRS, strict=True)):  # some have no common 4-gram, which smooths
        assert metrics.bleu_of_counts(counts[row]) == pytest.approx(sacrebleu.corpus_bleu([ours], [[theirs]]).score)


def test_rouge_l_and_positions_by_hand():
    """Longest common subsequence, not common words; positions behind a text's end do not count."""
    assert metrics.rouge_l(["a b c d", "x", ""], ["a c b d e f", "y", "z"]) == [pytest.approx(0.6), 0, 0]
    target = torch.tensor([[5, 6, END, END], [5, 7, 8, END], [9, END, END, END]])
    predicted = torch.tensor([[5, 6, 1, END], [5, 6, 8, END], [1, END, 4, 4]])
    accuracy, count = metrics.accuracy_by_position(predicted, target, END)
    assert count.tolist() == [3, 3, 2, 1]
    torch.testing.assert_close(accuracy, torch.tensor([2 / 3, 2 / 3, 1 / 2, 1.0]))


def test_intervals_have_the_width_of_statistics():
    """An interval over tokens in place of texts, or over a resample of another size, has another width."""
    right = np.tile([0.0, 100.0], 200)
    scores = Measures({"exact": right}, np.tile([4, 3, 2, 1, 5, 4, 3, 2, 5, 5], (400, 1))).scores()
    exact = scores["exact"]
    assert exact.mean == 50 and exact.high - exact.low == pytest.approx(2 * 1.96 * 50 / 20, rel=0.15)
    assert scores["BLEU"].low == scores["BLEU"].mean == scores["BLEU"].high  # equal texts: nothing varies


def test_nothing_of_some_texts_is_not_certainly_nothing():
    """None of 59 texts exact had the interval [0, 0], and 2 of 2 were certain."""
    nothing = Measures({"exact": np.zeros(59), "cosine": np.full(59, 0.5)}).scores()
    assert nothing["exact"].low == 0 and nothing["exact"].high == pytest.approx(100 * (1 - 0.025 ** (1 / 59)))
    assert nothing["cosine"].low == nothing["cosine"].high == 0.5
    assert Measures({"exact": np.full(2, 100.0)}).scores()["exact"].low == pytest.approx(100 * 0.025**0.5)


def test_one_text_says_nothing_of_others():
    """BLEU and cosine of one text had intervals of no width, as if every text had the same."""
    scores = Measures(
        {"exact": np.zeros(1), "cosine": np.array([0.9])}, metrics.bleu_counts(OURS[:1], THEIRS[:1])
    ).scores()
    assert (scores["cosine"].mean, scores["cosine"].low, scores["cosine"].high) == (0.9, -1, 1)
    assert (scores["BLEU"].low, scores["BLEU"].high) == (0, 100)


def test_scores_of_some_rows_are_those_of_these_texts():
    """Rows by part must not borrow texts from other parts."""
    measures = Measures({"exact": np.array([0.0, 100.0, 0.0, 0.0])}, metrics.bleu_counts(OURS, THEIRS))
    some = measures.scores(np.array([False, True, False, False]))
    assert some["exact"].mean == 100 and some["BLEU"].mean == pytest.approx(100)


def test_texts_without_four_words_have_no_bleu(tmp_path):
    """Texts of three words that came back whole had a BLEU of 0 beside an exact share of 100 %."""
    counts = metrics.bleu_counts(["a red kite", *OURS[1:]], ["a red kite", *THEIRS[1:]])
    measures = Measures({"exact": np.full(4, 100.0)}, counts)
    short = measures.scores(np.array([True, False, False, False]))
    assert set(short) == {"exact"} and set(measures.scores()) == {"exact", "BLEU"}
    assert set(Measures({"exact": np.full(1, 100.0)}, measures.bleu_counts[:1]).means()) == {"exact"}
    rows = [Row("inversion", "inversion", 4, measures.scores()), Row("length", "1–4 tokens", 1, short)]
    assert markdown(rows).splitlines()[-1].endswith("|  |")
    assert cells(short, ["exact", "BLEU"], intervals=False) == ["100.0", ""]
    rows = [Row("length", "1–4 tokens", 1, {"token F1": Score(100, 0, 100), **short})]  # nor has its plot
    save_plots(Report(rows, [1.0], calibration_report(torch.ones(1), torch.ones(1, dtype=torch.bool)), []), tmp_path)
    assert (tmp_path / "lengths.png").exists()


def test_floors_see_no_right_vector(held_out):
    """A floor that got the right vector would look as good as the method."""
    assert held_out.measure(held_out.invert()).means()["exact"] == 100
    assert held_out.other_text().texts == held_out.texts[-1:] + held_out.texts[:-1]
    assert set(held_out.no_vector().texts) == {""}
    random = held_out.random_tokens()
    assert torch.equal(random.ids == END, held_out.input_ids == END)
    assert held_out.measure(random).means()["token F1"] < 20


@pytest.mark.parametrize("texts, expected", [("aab", "bba"), ("abbaa", "baabb"), ("abab", "baba"), ("abca", "cabc")])
def test_the_vector_of_a_copy_is_no_other_vector(encoder, texts, expected):
    """Where copies of a text follow each other, around the end too, the floor read the right vector."""
    assert held_out_of(encoder, list(texts)).other_text().texts == list(expected)


@pytest.mark.parametrize("texts", [["a red kite"], ["a red kite"] * 3])
def test_a_text_alone_has_no_floor_of_another_text(encoder, texts):
    """The floor of a single text was the right vector, and as high as the method."""
    rows = evaluate(held_out_of(encoder, texts), [{}]).rows
    assert [row.name for row in rows if row.section == "floor"] == ["floor: no vector", "floor: random tokens"]


def test_a_search_gives_the_blind_floor_no_vector(encoder):
    """Candidates of a blind model were ranked by the right vector, and the floor came out as high as the method."""
    torch.manual_seed(0)
    model = new_tiny_inverter(encoder.tokenizer, embedding_dim=384)
    held, _ = HeldOut.of_texts(model, encoder.tokenizer, encoder, ["a red kite", "two men talk", "the sea"])
    search = {"num_candidates": 8, "num_corrections": 1, "candidate_temperature": 1.0}
    assert len(set(held.invert(feedback="encoder", **search).texts)) > 1
    blind = held.no_vector(feedback="encoder", **search)
    assert len(set(blind.texts)) == 1 and blind.texts == held.no_vector().texts
    assert blind.feedback_calls == 0
    model.generation_config.search = SearchSettings(num_candidates=8)  # the checkpoint's own settings search
    assert held.no_vector().texts == blind.texts


def test_a_bar_moves_with_each_round_of_a_search(encoder, monkeypatch):
    """The bar counted batches of 64: of 96 texts it stood at "0/2" for minutes, and never said how many are done."""
    moves = []
    monkeypatch.setattr(RowBar, "_move", lambda bar, count: moves.append((bar.round, count)))
    torch.manual_seed(0)
    model = new_tiny_inverter(encoder.tokenizer, embedding_dim=384)
    held, _ = HeldOut.of_texts(model, encoder.tokenizer, encoder, ["a red kite", "two men talk", "the sea"])
    held.invert(batch_size=2, progress="one", num_candidates=2, num_corrections=1, feedback="encoder")
    both = [(", round 0 of 1", 0), (", round 1 of 1", 1), ("", 2)]
    assert moves == [*both, (", round 0 of 1", 2), (", round 1 of 1", 2.5), ("", 3)]


def test_nearest_training_text_is_the_nearest_over_all_chunks(held_out):
    """A search that forgets all but its last chunk; rows shorter than the canvas."""
    vectors = unit_vectors(7, 384, seed=3)
    vectors[2], vectors[5] = held_out.embeddings[1], held_out.embeddings[3] + 0.01
    ids = torch.full((7, 4), END)
    ids[2, :2], ids[5, :2] = torch.tensor([2048, 2273]), torch.tensor([2026, 4937])
    pairs = Dataset.from_dict({"input_ids": ids.tolist(), "embedding": vectors.half().tolist()})
    nearest = held_out.nearest_training_text(pairs, chunk_size=3)
    assert nearest.texts[1] == "two men" and nearest.texts[3] == "my cat"
    assert nearest.ids.shape == held_out.input_ids.shape


def test_the_nearest_training_text_is_not_cut(held_out):
    """Of a longer training text the floor scored the first tokens alone, a text that nobody wrote."""
    length = held_out.input_ids.shape[1]
    ids = torch.full((1, length + 3), END)
    ids[0, : length + 2] = 4937
    pairs = Dataset.from_dict({"input_ids": ids.tolist(), "embedding": unit_vectors(1, 384).half().tolist()})
    nearest = held_out.nearest_training_text(pairs)
    assert nearest.texts[0] == " ".join(["cat"] * (length + 2)) and nearest.ids.shape == held_out.input_ids.shape


def test_report_has_a_row_for_every_combination_part_and_length(held_out):
    """Groups that overlap or lose texts; a mean over nothing that JSON cannot hold."""
    combinations = sweep(num_steps=[1, 8], guidance_scale=[1.0], strategy=None)
    assert combinations == [{"num_steps": 1, "guidance_scale": 1.0}, {"num_steps": 8, "guidance_scale": 1.0}]
    report = evaluate(held_out, combinations, ["x", "y", "x", "y"])
    sections = [row.section for row in report.rows]
    assert sections == ["inversion"] * 2 + ["floor"] * 3 + ["part"] * 2 + ["length"] * 2
    assert [row.num_forward_passes for row in report.rows[:2]] == [1, 8]
    table = markdown(report.rows).splitlines()
    assert len(table) == 2 + len(sections) and len({line.count("|") for line in table}) == 1
    for section in ("part", "length"):
        assert sum(row.texts for row in report.rows if row.section == section) == 4
    assert report.accuracy_by_position[:5] == [1.0] * 5


def test_texts_shorter_than_the_canvas_are_scored(encoder):
    """`max_length` below the canvas ended in an IndexError; the end of a cut text, which nobody wrote, is no token."""
    torch.manual_seed(0)
    model = new_tiny_inverter(encoder.tokenizer, embedding_dim=384)
    held, _ = HeldOut.of_texts(model, encoder.tokenizer, encoder, ["a red kite flies over the sea", "two men talk"])
    recovered = held.invert(max_length=4)
    assert recovered.confidence.shape == recovered.ids.shape == held.input_ids.shape
    report = evaluate(held, [{"max_length": 4}], floors=False)
    assert sum(report.calibration["count"]) == int((recovered.confidence > 0).sum()) > 0


@pytest.mark.parametrize(
    "impossible, message",
    [
        ({"num_corrections": 1}, "num_corrections needs feedback"),
        ({"num_corrections": 1, "feedback": "surrogate"}, "no surrogate"),
        ({"strategy": "autoregressive"}, "left to right needs"),
        ({"num_rewrites": 1}, "no corrector"),
        ({"max_length": 99}, "max_length 99 is more than"),
        ({"num_draft_beams": 2}, "has no beam search"),
    ],
)
def test_a_sweep_is_checked_before_its_first_run(held_out, encoder, inverted, impossible, message):
    """Hours of a sweep were lost when a later combination turned out to be impossible."""
    held_out.model = new_tiny_inverter(encoder.tokenizer, embedding_dim=384)
    with pytest.raises(EmbInvError, match=message):
        evaluate(held_out, [{}, impossible])
    assert not any(inverted)
    evaluate(held_out, [{}, {"num_steps": 1}], floors=False)
    assert sum(inverted) == 2 * len(held_out.texts)


def test_an_encoder_that_is_not_there_is_found_before_a_sweep(held_out, encoder, inverted):
    """The judge of a later combination was an encoder that cannot be called here, which no combination had needed."""
    held_out.model = new_tiny_inverter(encoder.tokenizer, embedding_dim=384)
    held_out.encoder = AbsentEncoder(EncoderConfig(id="some/api", tokenizer=encoder.path, embedding_dim=384))
    with pytest.raises(EmbInvError, match="some/api cannot be called here"):
        evaluate(held_out, [{}, {"num_candidates": 2, "feedback": "encoder"}])
    assert not any(inverted)


def test_report_is_json_without_nan(held_out, tmp_path):
    """`NaN` is no JSON: other programs refuse the whole file."""
    report = evaluate(held_out, [{}], floors=False)
    report.accuracy_by_position[-1] = float("nan")
    report.save(tmp_path / "scores.json", "model")
    saved = json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
    assert saved["accuracy_by_position"][-1] is None and saved["model"] == "model"


def test_a_narrow_terminal_shows_means_alone():
    """At 80 columns the intervals left three characters for each column, so that no number could be read."""
    scores = dict.fromkeys(COLUMNS, Score(49.12, 44.3, 54.1))
    report = Report([Row("inversion", "inversion", 96, scores, 8, 12.3)], [], {}, [])
    for width, whole in ((80, r"49\.1\b"), (180, r"49\.1 \[44\.3, 54\.1\]")):
        console = Console(file=io.StringIO(), width=width)
        console.print(report.table("model", width))
        shown = console.file.getvalue()
        assert len(re.findall(whole, shown)) == 5 and "…" not in shown and "token F1" in " ".join(shown.split())
        assert ("[44" in shown) == (width == 180) and ("means alone" in shown) == (width == 80)


def test_names_of_parts_leave_tables_whole():
    """A `|` in a file's name began another cell of a Markdown table, and `[/b]` was markup that ended the command."""
    rows = [Row("part", name, 2, dict.fromkeys(COLUMNS, Score(1, 0, 2))) for name in ("a|b", "[bold]c[/b]")]
    lines = markdown(rows).splitlines()
    assert lines[2].startswith(r"| a\|b | 2 |") and len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    console = Console(file=io.StringIO(), width=180)
    console.print(Report(rows, [], {}, []).table("runs/[/b]", 180))
    assert all(name in console.file.getvalue() for name in ("a|b", "[bold]c[/b]", "runs/[/b]"))
