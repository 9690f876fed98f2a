"""Guesses: which of a list of texts are in the whole store, how severe that is, and that no inverter is needed."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from modeling_embinv.audit.files import write_report
from modeling_embinv.audit.guesses import Guess, Guesses, Rates, rank_guesses
from modeling_embinv.audit.nearest_rows import NearestRows
from modeling_embinv.audit.page import page
from modeling_embinv.audit.severity import GUESS_LEVELS, alarm_severity
from modeling_embinv.audit.terminal import lines
from modeling_embinv.cli import audit_store
from modeling_embinv.stores.rows import VectorBatch
from tests.audit.conftest import TEXTS, report_of, run, tier_result, write

pytestmark = pytest.mark.usefixtures("remembering")
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def batches(vectors, texts, size=4, first=0, collection=None):
    """The rows of a store, `size` at a time."""
    for start in range(0, len(vectors), size):
        part = slice(start, start + size)
        rows = np.arange(first + start, first + start + len(vectors[part]))
        yield collection, VectorBatch(vectors[part], rows, [f"T-{row}" for row in rows], texts[part])


def test_guesses_are_told_from_strangers(encoder):
    """A fixed threshold takes every short guess for a hit, or none."""
    cities = ("Oslo", "Lima", "Cairo", "Perth", "Osaka", "Quito", "Turin", "Leeds")
    faults = ("is closed", "has no heating", "lost my invoice 42")
    members = [f"Our office in {city} {fault}, please tell Mrs Tanaka." for city in cities for fault in faults]
    stored = encoder.encode(members).numpy()
    guesses = [members[3], members[22], "Quarterly figures of the shipping division fell by a third in spring"]
    found = rank_guesses(guesses, encoder.encode, members[:21], batches(3 * stored, members, first=100), 384, 0)
    by_text = {guess.text: guess for guess in found.ranking}
    assert all(guesses[guess.number - 1] == guess.text for guess in found.ranking) and found.rows == 24
    for index in (3, 22):  # the second is none of the sample's rows
        guess = by_text[members[index]]
        assert guess.is_alarm and (guess.row, guess.id) == (100 + index, f"T-{100 + index}") and guess.cosine > 0.999
    assert not by_text[guesses[2]].is_alarm and found.ranking[-1].text == guesses[2]
    assert all(one.false_alarms <= 0.05 and one.members == 21 and one.true_alarms > 0 for one in found.rates)
    assert found.severity == "critical" and len(found.alarms) == 2 and 0 <= found.false_alarms <= 0.05


def test_one_text_does_not_tell_what_an_alarm_is_worth(encoder):
    """Of a one-row store 0 % of texts on its subject raised an alarm, as it has no other row: the alarm was high."""
    few = [f"Our office in {city} is closed." for city in ("Oslo", "Lima", "Cairo")]
    for texts, members in ((few[:1], 0), (few[:1] * 30, 0), (few, 3)):
        stored = encoder.encode(texts).numpy()
        found = rank_guesses(["The Oslo office is shut"], encoder.encode, texts, batches(stored, texts), 384, 0)
        (rates,) = found.rates
        assert (rates.members, rates.on_topic, rates.true_alarms) == (members, None, None)
        assert found.ranking[0].is_alarm and found.severity == "medium"


def test_the_share_on_the_subject_is_not_surer_than_its_members():
    """0 of 20 texts on the subject, whose true share may be 17 %, made an alarm of two guesses high."""
    ranking = [Guess(line, "a", 0.9 - line / 10, None, 0, None, line == 1, 0.0) for line in (1, 2)]
    sure, unsure = (Guesses(ranking, [Rates(1, 1, 2, 0.5, 300, 0.01, n, 0.8, 0.0)], 9) for n in (300, 20))
    assert unsure.rates[0].highest_on_topic == pytest.approx(0.168, abs=0.001)
    assert sure.severity == "high" and unsure.severity == "medium"


def test_rates_are_of_the_whole_store(encoder):
    """Guesses were compared with all rows and decoys with a sample: a large store made every guess an alarm."""
    from modeling_embinv.audit.public import public_sentences

    near = list(public_sentences())  # each decoy is a piece of these: their nearest rows are nearer in the whole store
    guesses = ["a letter from the bank"]

    def threshold(texts):
        stored = encoder.encode(texts).numpy()
        (rates,) = rank_guesses(guesses, encoder.encode, None, batches(stored, texts, 100), 384, 0).rates
        return rates.threshold

    assert threshold(near[:300]) > threshold(near[:10]) + 0.05


def test_the_nearest_row_of_all_batches_is_kept(monkeypatch):
    """A row of a later batch, of another collection, or of a second block of guesses was lost."""
    from modeling_embinv.audit import nearest_rows

    monkeypatch.setattr(nearest_rows, "BLOCK", 2)
    unit = np.eye(5, dtype=np.float32)
    mixed = (unit[0] + 2 * unit[1]) / np.sqrt(5)
    found = NearestRows(np.stack([*unit[:4], mixed]), ["a", "b", "c", "d", "a"])
    for collection, batch in (*batches(7 * unit[:2], ["a", "b"], 1), *batches(unit[1:4], ["b", "x", "d"], 2, 50, "z")):
        found.add(collection, batch)
    assert found.total == 5 and [row[:2] for row in found.rows] == [
        (None, 0),
        (None, 1),
        ("z", 51),
        ("z", 52),
        (None, 1),
    ]
    assert np.allclose(found.cosine, [1, 1, 1, 1, 2 / np.sqrt(5)])
    # rows of a vector's own text, of which there may be several, do not count as others
    assert np.allclose(found.others, [0, 0, 1, 0, 2 / np.sqrt(5)])


@pytest.mark.parametrize(
    "alarms, guesses, nearest, on_topic, expected",
    [
        (0, 5, 0.0, None, "none"), (1, 5, 0.999, None, "critical"), (1, 1000, 0.9989, None, "low"),
        (1, 1, 0.9, None, "medium"), (10, 1000, 0.9, None, "low"), (30, 1000, 0.9, None, "medium"),
        (30, 1000, 0.9, 0.3, "medium"), (400, 1000, 0.9, 0.3, "high"), (30, 1000, 0.9, 0.0, "high"),
    ],
)  # fmt: skip
def test_severity_of_alarms(alarms, guesses, nearest, on_topic, expected):
    """Ten alarms of a thousand guesses are what chance gives; one of one is not."""
    assert alarm_severity(alarms, guesses, nearest, 0.01, on_topic) == expected
    assert expected == "none" or expected in GUESS_LEVELS


def test_an_alarm_is_a_finding_in_every_form(tmp_path):
    """A guess that is in the store stood in a table, and the severity above it was "none"."""
    plain = tier_result(["Zebedee moved"], ["x"])
    rates = [Rates(1, 1, 2, 0.5, 300, 0.01, 9, 0.8, 0.34)]
    ranking = [Guess(2, "Zebedee", 1.0, None, 7, "T-7", True, 0.0), Guess(1, "Tom", 0.3, None, 1, "T-1", False, 0.6)]
    report = report_of(plain, guesses=Guesses(ranking, rates, 90))
    assert report.severity == "critical"
    write_report(report, tmp_path)
    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    (one,) = [finding for finding in document["findings"] if "GUESSES" in finding["rule"]]
    sentence = "1 of 2 guesses raises an alarm; 1.0 % of unrelated texts do, and 34 % of texts on the store's subject"
    assert one["severity"] == "critical" and sentence in one["sentence"] and "all 90 vectors" in one["sentence"]
    assert "The nearest has a cosine of 1.0000: the store holds this text, or a long one" in one["sentence"]
    assert document["guesses"]["alarms"] == 1 and document["thresholds"]["severity_by_guesses"] == GUESS_LEVELS
    (run_,) = json.loads((tmp_path / "report.sarif").read_text(encoding="utf-8"))["runs"]
    (result,) = [result for result in run_["results"] if result["ruleId"] == one["rule"]]
    assert result["level"] == "error" and sentence in result["message"]["text"]
    assert sentence.replace("'", "&#x27;") in page(report) and f"{sentence}; critical" in "\n".join(lines(report))
    quiet = report_of(plain, guesses=Guesses(ranking[1:], rates, 90))
    assert quiet.severity == report_of(plain).severity == "none"


def test_an_alarm_is_listed_before_the_others():
    """Of forty guesses the table had the thirty nearest without a word of the rest, among which an alarm stood."""
    ranking = [Guess(line, f"guess {line}", 1 - line / 100, "mail", line, None, line == 40, 0.1) for line in range(41)]
    guesses = Guesses(ranking, [Rates(1, 1, 41, 0.5, 300, 0.01, 9, 0.8, 0.34)], 90)
    text = page(report_of(tier_result(["Zebedee moved"], ["x"]), guesses=guesses))
    table = text.partition("Line of the list")[2].partition("</table>")[0]
    assert [int(row) for row in re.findall(r"<tr><td>(\d+)</td>", table)] == [40, *range(29)]
    assert "<td><bdi>mail: 40</bdi></td>" in table and "and 11 more: report.json" in text
    few = report_of(tier_result(["a"], ["x"]), guesses=replace(guesses, ranking=ranking[:30]))
    assert "more: report.json" not in page(few)


@pytest.fixture
def guesses(tmp_path):
    path = tmp_path / "guesses.txt"
    path.write_text(f"{TEXTS[7]}\nthe price of tea\n", encoding="utf-8")
    return path


@pytest.fixture
def no_checkpoint(monkeypatch, tmp_path):
    """The usual checkpoint is neither in a folder nor on a Hub that can be reached."""
    monkeypatch.setattr(audit_store, "MODEL", "embinv/no-such-checkpoint")


@pytest.mark.parametrize("named", [(), ("--tiers", "guesses")])
def test_guesses_need_no_inverter(capsys, no_checkpoint, store, guesses, tmp_path, named):
    """A list of names could be checked only by who had a checkpoint of the encoder; the rest of the store was not."""
    arguments = (store, "--candidates", guesses, "--encoder", MINILM, "--limit", 2, "--out", tmp_path / "r")
    code, printed, err = run(capsys, *arguments, *named)
    assert code == 0, err
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert report["checkpoint"] is None and report["encoder"] == MINILM and report["origin"]["fits"]
    assert report["tiers"] == report["planted"] == [] and report["named_words"] is report["defences"] is None
    first, second = report["guesses"]["ranking"]
    assert first["is_alarm"] and first["row"] == 7 and not second["is_alarm"]
    assert report["guesses"]["rows"] == len(TEXTS) and report["severity"] == "critical"
    assert [finding["rule"] for finding in report["findings"]] == ["EMBINV-GUESSES-ALARMS"]
    assert any("no inverter was tried" in note for note in report["warnings"]) == (not named)
    assert not (tmp_path / "r" / "hits.jsonl").read_text(encoding="utf-8") and "severity    critical" in printed
    assert TEXTS[7].lower() not in (tmp_path / "r" / "index.html").read_text(encoding="utf-8").lower()
    assert any(f"holds {len(TEXTS)} vectors" in note for note in report["warnings"])  # as in any other audit


def test_a_guess_has_its_line_of_the_file(capsys, no_checkpoint, store, tmp_path):
    """Where guesses are hidden the number is all that names them, and it was another line's behind a blank one."""
    path = tmp_path / "guesses.txt"
    path.write_text(f"\nthe price of tea\nthe price of tea\n\n{TEXTS[7]}\n", encoding="utf-8")
    arguments = (store, "--candidates", path, "--encoder", MINILM, "--tiers", "guesses", "--limit", 2)
    code, _, err = run(capsys, *arguments, "--out", tmp_path / "r")
    assert code == 0, err
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert [(one["number"], one["row"]) for one in report["guesses"]["ranking"][:1]] == [(5, 7)]
    assert [one["number"] for one in report["guesses"]["ranking"]] == [5, 2]


def test_the_gate_counts_guesses(capsys, no_checkpoint, store, guesses, tmp_path):
    """A list of customers that are all in the store passed every gate; a gate without a list stood open."""
    arguments = (store, "--encoder", MINILM, "--limit", 2, "--out", tmp_path / "r", "--fail-over")
    known = ("--candidates", guesses)
    assert run(capsys, *arguments, "guesses=0.5", *known)[0] == 0  # one of two
    code, _, err = run(capsys, *arguments, "guesses=0.49", *known)
    assert code == 3 and "over the threshold: guesses 0.500, allowed 0.49" in err
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert report["thresholds"]["fail_over"] == {"guesses": {"limit": 0.49, "over": True}}
    # words are not measured here, which hid that a guess was found
    code, _, err = run(capsys, *arguments, "words=0.3,guesses=0", *known)
    first, second = err.splitlines()[-2:]
    assert code == 3 and "over the threshold: guesses 0.500, allowed 0" in first and "words: not measured" in second
    code, _, err = run(capsys, *arguments, "words=0.3,guesses=0.5", *known)
    assert code == 2 and "words: not measured" in err.splitlines()[-1] and "over the threshold" not in err
    code, printed, err = run(capsys, *arguments, "guesses=0.5", "--tiers", "vectors")
    assert code == 2 and not printed and "--fail-over guesses needs --candidates" in err.splitlines()[-1]


def test_guesses_without_any_encoder_are_one_line(capsys, no_checkpoint, store, guesses, tmp_path):
    """The message was that of the Hub, on a checkpoint that nobody had asked for."""
    arguments = (store, "--candidates", guesses, "--out", tmp_path / "r", "--tiers", "guesses")
    code, printed, err = run(capsys, *arguments)
    assert code == 2 and not printed and not (tmp_path / "r").exists()
    assert "name it with --encoder, or with --model" in err.splitlines()[-1]


@pytest.mark.parametrize("kind, words", [("rotated", "another encoder"), ("wide", "expected 384")])
def test_guesses_by_the_wrong_encoder_are_refused(capsys, no_checkpoint, encoder, guesses, tmp_path, kind, words):
    """No alarm against vectors of another encoder looked like a clean store."""
    own = encoder.encode([f"{text} {number}" for text in TEXTS for number in range(8)]).numpy()
    turned = own @ np.linalg.qr(np.random.default_rng(0).standard_normal((384, 384)))[0]
    held = turned if kind == "rotated" else np.tile(own, 2)
    source = write(tmp_path / "dump.parquet", held.astype(np.float32))
    arguments = (source, "--candidates", guesses, "--encoder", MINILM, "--out", tmp_path / "r")
    code, _, err = run(capsys, *arguments)
    assert code == 2 and words in err and "--encoder" in err.splitlines()[-1] and not (tmp_path / "r").exists()
    forced, _, _ = run(capsys, *arguments, "--tiers", "guesses", "--force")
    assert forced == (0 if kind == "rotated" else 2)


def test_a_store_that_changes_before_guesses_are_compared(capsys, store, encoder, guesses, tmp_path, monkeypatch):
    """Guesses would be compared with other rows than those that the report's digest is of."""
    source = write(tmp_path / "dump.parquet", encoder.encode(TEXTS).numpy(), body=TEXTS)
    draw = audit_store.choose_target

    def changed(*arguments):
        write(source, encoder.encode(TEXTS[:5]).numpy(), body=TEXTS[:5])
        return draw(*arguments)

    monkeypatch.setattr("modeling_embinv.cli.audit.choose_target", changed)
    arguments = (source, "--candidates", guesses, "--encoder", MINILM, "--tiers", "guesses", "--out", tmp_path / "r")
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "changed" in err.splitlines()[-1] and not (tmp_path / "r").exists()
