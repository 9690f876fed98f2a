"""The files of a report: what they hold, and what they must not."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from modeling_embinv.audit.alignment import Alignment
from modeling_embinv.audit.attack import ENCODER
from modeling_embinv.audit.context import Filled
from modeling_embinv.audit.defences import DefenceReport, DefenceResult, judged
from modeling_embinv.audit.figures import Figure
from modeling_embinv.audit.files import write_report
from modeling_embinv.audit.guesses import Guess, Guesses, Rates
from modeling_embinv.audit.hits import redacted
from modeling_embinv.audit.notes import size_notes
from modeling_embinv.audit.page import page
from modeling_embinv.audit.report import utc_now
from modeling_embinv.audit.retrieval import Utility
from modeling_embinv.audit.sarif import sarif
from modeling_embinv.audit.severity import ORDER, severity
from modeling_embinv.audit.store import Part, describe
from modeling_embinv.audit.summary import findings, gate_notes
from modeling_embinv.audit.terminal import lines
from modeling_embinv.audit.tiers import OTHER_TEXT, PUBLIC_TEXT
from modeling_embinv.audit.words import content_words
from modeling_embinv.stores.rows import Skipped
from tests.audit.conftest import DATE, entities, report_of, tier_result

TEXTS = [f"Zebedee Quuxley{row} moved to Wobbleton{row} <b>today</b>" for row in range(12)]
RECOVERED = [f"zebedee quuxley{row} abandoned wobbleton{row}" for row in range(12)]


@pytest.fixture(scope="module")
def result():
    found = [entities(text, names=f"Zebedee Quuxley{row}") for row, text in enumerate(TEXTS)]
    return tier_result(TEXTS, RECOVERED, found)


@pytest.mark.parametrize("reveal", [False, True])
def test_recovered_words_stand_only_where_they_are_revealed(result, tmp_path, reveal):
    """A report goes to people who may not read the store."""
    write_report(report_of(result, reveal=reveal), tmp_path)
    secrets = set().union(*map(content_words, RECOVERED))
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "report.json", "hits.jsonl", "report.sarif"}
    for path in tmp_path.iterdir():
        text = path.read_text(encoding="utf-8").lower()
        shown = {word for word in secrets if re.search(rf"\b{word}\b", text)}
        assert bool(shown) == (reveal and path.name in ("index.html", "hits.jsonl")), (path.name, shown)
    assert "zebedee" not in "\n".join(lines(report_of(result, reveal=reveal))).lower()


def test_a_full_disk_leaves_the_older_report_whole(result, tmp_path, file_limit):
    """Three files were of the new audit and the page, the largest, of the old one: a report that nobody measured."""
    write_report(report_of(result), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    file_limit(max(map(len, before.values())) - 500)
    with pytest.raises(OSError, match=r"index\.html cannot be written: File too large") as caught:
        write_report(replace(report_of(result), date="2027-01-01T00:00:00Z"), tmp_path)
    file_limit(None)
    assert str(tmp_path) in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_planted_rows_are_no_rows_of_the_store(result, tmp_path):
    """Row 3 of the invented sentences stood in hits.jsonl and among the examples as row 3 of the store."""
    bare = replace(result, sample=result.sample._replace(texts=None), figures={}, kinds={}, entities=[])
    write_report(report_of(bare, planted=[result]), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "hits.jsonl").read_text("utf-8").splitlines()]
    assert [row.get("planted") for row in rows] == [None] * len(TEXTS) + [True] * len(TEXTS)
    text = (tmp_path / "index.html").read_text("utf-8")
    examples = text.partition("<h2>Examples</h2>")[2]
    assert "invented sentences" in examples and "<small class=soft>invented sentence <bdi>T-" in examples
    assert "; 12 invented sentences." in text
    assert "invented sentence" not in page(report_of(result))


def test_bars_do_not_tell_lengths():
    """A bar as long as its word helps to guess it."""
    assert redacted("I, Bob") == redacted("supercalifragilistic tunes!") == "▇▇▇ ▇▇▇"


def test_the_page_is_closed_and_escaped(result):
    """A page that loads something tells its host who reads which report; a text of a stranger is no HTML."""
    text = page(report_of(result, reveal=True))
    assert "<b>" not in text.replace("<b style", "") and "&lt;" in text
    assert "<script" not in text and not re.search(r"(src|href)\s*=|url\(|@import", text)
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text and "@media print" in text


def test_kinds_that_were_looked_for_and_are_not_there(result):
    """Thresholds of names ended with status 2 on a store without names; without a finder they must."""
    limits = {"names": 0.5, "phone": 0.0}
    report = report_of(result, limits=limits, looked_for=("names", "phone"))
    assert report.over() == {"names": True, "phone": False} and report.absent == ["phone"]
    (note,) = gate_notes(report)
    assert "no entity of kind phone" in note and "counts as 0" in note
    assert report.as_dict()["thresholds"]["fail_over"]["phone"] == {"limit": 0.0, "over": False}
    unseen = report_of(result, limits=limits)
    assert unseen.over() == {"names": True, "phone": None} and not list(gate_notes(unseen))
    assert unseen.as_dict()["thresholds"]["fail_over"]["phone"] == {"limit": 0.0, "over": None}
    assert not replace(report, tiers=[]).absent


def test_sarif_holds_what_the_format_requires(result):
    """SARIF 2.1.0, 3.13 to 3.28, and what GitHub asks for besides: a file, and a score."""
    document = json.loads(json.dumps(sarif(report_of(result))))
    (run,) = document["runs"]
    driver = run["tool"]["driver"]
    assert document["version"] == "2.1.0" and document["$schema"].endswith(".json") and driver["name"]
    assert len({rule["id"] for rule in driver["rules"]}) == len(driver["rules"]) == len(run["results"]) == 2
    for one in run["results"]:
        assert driver["rules"][one["ruleIndex"]]["id"] == one["ruleId"]
        assert one["level"] in ("none", "note", "warning", "error") and one["message"]["text"]
        place = one["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "dump.parquet" and place["region"]["startLine"] == 1
        assert one["partialFingerprints"]
    assert all(0 <= float(rule["properties"]["security-severity"]) <= 10 for rule in driver["rules"])


@pytest.mark.parametrize(
    "name, uri",
    [
        ("chroma:./store", "store"), ("faiss:my exports/v.npy", "my%20exports/v.npy"), ("./v.npy", "v.npy"),
        ("postgresql://reader@db.example:5432/app?table=notes", "db.example/app"), ("/data/v.npy", "data/v.npy"),
    ],
)  # fmt: skip
def test_code_scanning_takes_every_place(result, name, uri):
    """GitHub refuses the whole file for one URL of another scheme, or a blank in a path."""
    report = report_of(result)
    report.source.update(name=name, collection="notes")
    (run,) = sarif(report)["runs"]
    assert {one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in run["results"]} == {uri}
    marks = [one["partialFingerprints"] for one in run["results"]]
    report.source.update(collection="mail")  # another collection of the same store is no duplicate
    (run,) = sarif(report)["runs"]
    assert all(one["partialFingerprints"] not in marks for one in run["results"])


def test_the_report_says_how_it_was_made(result):
    """Without seed, sample and versions nobody can repeat it."""
    document = report_of(result, limits={"words": 0.3}).as_dict()
    assert document["schema"] == "embinv-audit/3" and document["severity"] == "critical"
    assert document["sample"] == {"rows": 12, "of": 12, "seed": 0}
    assert {"embinv", "python", "torch"} <= set(document["versions"])
    (tier,) = document["tiers"]
    assert tier["figures"]["words"]["floors"] and tier["kinds"]["names"]["whole"]["hits"] == 12
    assert document["thresholds"]["fail_over"]["words"] == {"limit": 0.3, "over": True}
    ids = {one["id"] for one in document["standards"]}
    assert {"OWASP LLM08:2025", "MITRE ATLAS AML.T0024.001", "CWE-200"} <= ids


def test_defences_stand_in_every_form_of_the_report(result):
    """A figure that the page has and the JSON has not is copied by hand."""
    figure = {share: Figure(share, share - 0.1, share + 0.1, 5, 10) for share in (0.6, 0.3, 0.5)}
    bare = DefenceResult("none", "none", Utility(1, 1), Utility(0.8, 0.7), {"released": figure[0.6]}, 1.0, None)
    noise = DefenceResult("noise 1", "noise", Utility(0.5, 0.6), None, {"released": figure[0.3]}, 0.4, 0.5)
    attacks = {"released": figure[0.3], "adapted": figure[0.5]}
    signs = DefenceResult("signs", "binary", Utility(0.75, 0.8), Utility(0.7, 0.6), attacks, 0.6, 0.9)
    found = DefenceReport(
        judged([bare, noise, signs]), 12, 90, 40, [(24, 0.5)], {"product quantisation": "needs FAISS"}
    )
    report = report_of(result, defences=found, alignment=Alignment("rotation", lambda rows: rows, 40, 0.93))
    document = json.loads(json.dumps(report.as_dict()))
    one = document["defences"]["results"][1]
    assert one["name"] == "signs" and one["strongest"] == "adapted" and one["words"]["value"] == 0.5
    assert one["noise_words"] == pytest.approx(0.45) and one["labelled"] == {"recall": 0.7, "ndcg": 0.6}
    assert document["defences"]["pairs"] == [{"pairs": 24, "cosine": 0.5}]
    assert document["pairs"] == {"known": 40, "map": "rotation", "cosine": 0.93}
    text, printed = page(report), "\n".join(lines(report))
    for piece in ("50 % [40, 60]", "45 %", "0.90", "noise hides 25 %", "needs FAISS", "40 other texts"):
        assert piece in text, piece
    assert (
        "(adapted; noise of this recall 45 %). Does not help against who knows pairs" in printed
        and "40 known pairs" in printed
    )


def test_every_form_says_when_the_store_was_read(result):
    """Two reports of one store could not be put in their order."""
    report = report_of(result)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", utc_now())
    assert report.as_dict()["date"] == DATE and DATE in page(report) and DATE in next(lines(report))
    assert sarif(report)["runs"][0]["invocations"][0]["startTimeUtc"] == DATE


def test_skipped_rows_are_counted_in_every_form(result):
    """Rows without a usable vector were a warning that scrolled away, and nothing in what is kept said so."""
    report = report_of(result)
    report.source["skipped"] = {"count": 1234, "examples": [[7, "is null"]]}
    assert "(1,234 rows without a usable vector were skipped)" in next(lines(report))
    assert "1,234 rows without a usable vector were skipped" in page(report)
    assert "skipped" not in next(lines(report_of(result)))


def test_the_floors_of_a_kind_stand_beside_it():
    """Numbers that every text of a store holds came back of any vector, and looked like a leak."""
    texts = [f"Ticket 7 of {name}" for name in ("Ann", "Bob", "Eve")]
    found = [entities(text, numbers="7", names=text.split()[-1]) for text in texts]
    report = report_of(tier_result(texts, ["ticket 7 ann", "ticket 7 bob", "ticket 7"], found))
    printed = "\n".join(lines(report))
    assert "numbers 3/3 (floor 3/3)" in printed and "names 2/3 (floor 0/3)" in printed
    table = page(report).partition("By kind")[2].partition("</table>")[0]
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in table.split("<tr>")[2:]]
    assert re.findall(r"<th>(.*?)</th>", table)[3:5] == ["Floor: another row", "Of their words"]
    assert [(row[0], row[3]) for row in cells] == [("names", "0 %"), ("numbers", "100 %")]


def test_sentences_read_as_sentences(result):
    """A cosine was a percentage, floors were "vector of another text 0 %", and all of ten rows were "drawn"."""
    report = report_of(result)
    text = page(report)
    cells = re.findall(r"<td>(.*?)</td>", text.partition("<td>cosine</td>")[2].partition("</tr>")[0])
    assert cells[:2] == ["0.90", "0.66–0.93"]
    assert "12 vectors of 4 numbers, all of which were attacked." in text and "drawn at random" not in text
    (words,) = [one.sentence for one in findings(report) if one.rule == "EMBINV-VECTORS-WORDS"]
    assert words.startswith(
        "With a copy of the vectors and a public checkpoint, an attacker recovers 36 of 60 content"
    )
    assert "; floors: 20\N{NO-BREAK SPACE}% from the vector of another row)" in words
    part = replace(report, sample=result.sample._replace(total=90))
    assert "90 vectors of 4 numbers, of which 12 were drawn at random (seed 0) and attacked." in page(part)
    guessed = replace(report, tiers=[], checkpoint=None)
    assert "12 vectors of 4 numbers, all of which are in the sample." in page(guessed)
    assert "            whole, by kind: names" in "\n".join(lines(report))


def test_one_is_no_plural():
    """A store of one row had "1 vectors", and "1 rows" of them."""
    one = tier_result(["parcel driver"], ["parcel"])
    report = report_of(
        replace(one, sample=one.sample._replace(vectors=one.sample.vectors[:, :1])), warnings=size_notes(one.sample)
    )
    whole = page(report) + "\n".join(lines(report))
    assert "1 vector of 1 number" in whole and "1 row, seed 0" in whole and "the store holds 1 vector;" in whole
    assert not re.search(r"\b1 (vectors|numbers|rows|texts)\b", whole)


def test_few_entities_make_no_severity():
    """One name of one is 100 %, and says nothing."""
    text = "Zebedee said hello yesterday"
    result = tier_result([text, "other things"], ["zebedee", "x"], [entities(text, names="Zebedee"), []])
    assert report_of(result).severity != "critical"


def test_no_finding_is_worse_than_the_severity():
    """An attacker with all of a few phone numbers hid the one with most of many: "medium" above a critical finding."""
    texts = [f"call 555{row:04d} parcel{row} driver{row} street{row} house{row}" for row in range(40)]
    phones = [text.split()[1] for text in texts]
    found = [entities(text, phone=phone) for text, phone in zip(texts, phones, strict=True)]
    many = tier_result(texts, [f"call {phone}" if row < 30 else "x" for row, phone in enumerate(phones)], found)
    few = replace(tier_result(texts[:8], [f"call {phone}" for phone in phones[:8]], found[:8]), tier=ENCODER)
    report = report_of(many)
    assert report.severity == "critical"
    report.tiers = [many, few]
    assert few.kinds["phone"].whole.value == 1 and report.severity == "critical"
    assert max((one.severity for one in findings(report)), key=ORDER.index) == "critical"


def test_words_are_graded_for_each_attacker():
    """A larger share of one row, whose interval reaches its floor, hid the finding of a hundred rows."""
    texts = [f"parcel{row} driver{row} street{row} house{row}" for row in range(100)]
    many = tier_result(texts, [text if row % 5 < 3 else "x" for row, text in enumerate(texts)])
    few = replace(tier_result(texts[:1], ["parcel0 driver0 street0"]), tier=ENCODER)
    report = report_of(many)
    report.tiers = [many, few]
    assert few.figures["words"].value > many.figures["words"].value and severity(few.figures["words"]) == "none"
    assert report.severity == severity(many.figures["words"]) == "critical"


def test_names_from_the_store_cannot_steer_the_terminal(result):
    """A table called so cleared the screen, and printed a severity of its own."""
    name = "docs\x1b[2J\nseverity    none\x9b31m"
    report = report_of(result, warnings=[f"the collection {name} is left out: random numbers"])
    report.source["collection"] = name
    plain = list(lines(report_of(result)))
    shown = list(lines(report))
    assert len(shown) == len(plain) + 1 and all(line.isprintable() for line in shown)
    assert sum(line.startswith("severity") for line in shown) == 1


def test_a_file_name_that_is_no_unicode(result, tmp_path):
    """A name in another encoding ended the audit after the attack, with a page missing."""
    store = Part(None, "d\udcff.npy", None, "", None, None, Skipped(), [result.sample])
    report = report_of(result)
    report.source, report.checkpoint["name"] = describe([store], result.sample), "model\udcff"
    write_report(report, tmp_path)
    assert "d?.npy" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["source"]["name"] == "d?.npy"


def test_an_inverter_that_filled_gaps_was_tried(result):
    """Where gaps alone were filled, or defences tried, the terminal said that no inverter was tried."""
    filled = Filled(1, 1, Figure(0.5, 0.1, 0.9, 0.5, 1), {"likely": 1}, 0, ["a"], False)
    report = replace(report_of(result), tiers=[], filled=filled)
    assert "inverter" not in "\n".join(lines(report)) and "scored" not in "\n".join(lines(report))
    (line,) = [line for line in lines(replace(report, checkpoint=None)) if line.startswith("sample")]
    assert line.endswith("no inverter was tried")


@pytest.mark.parametrize("ids", [None, [None, "T-1"]])
def test_examples_name_their_rows(ids):
    """Examples of two collections were "row 3" twice, and a row whose id is null was "row None"."""
    result = tier_result(["parcel driver street", "letter friend garden"], ["parcel driver", "letter"])
    sample = result.sample._replace(rows=np.array([7, 3]), ids=ids, collections=["mail", "notes"])
    text = page(report_of(replace(result, sample=sample)))
    last = "T-1" if ids else "3"
    assert "row <bdi>mail: 7</bdi>: 2 of 3" in text and f"row <bdi>notes: {last}</bdi>: 1 of 3" in text
    plain = page(report_of(replace(result, sample=sample._replace(collections=None))))
    assert "row <bdi>7</bdi>: 2 of 3" in plain and f"row <bdi>{last}</bdi>: 1 of 3" in plain


def test_every_word_that_came_back_is_marked():
    """Function words that came back were grey as if lost, beside the words "underlined ones came back"."""
    result = tier_result(["She wasn't in Paris in May"], ["she wasn't in london in june"])
    shown = page(report_of(result, reveal=True)).partition("<h2>Examples</h2>")[2]
    assert re.findall(r"<mark>(.*?)</mark>", shown) == ["She", "wasn&#x27;t", "in", "in"]
    assert re.findall(r'<span class="lost">(.*?)</span>', shown) == ["Paris", "May"]
    hidden = page(report_of(result)).partition("<h2>Examples</h2>")[2]
    row = hidden.partition('class="text"')[2]
    assert row.count("<mark>▇▇▇</mark>") == 4 and row.count('<span class="lost">░░░</span>') == 2


def test_words_that_came_back_look_other_than_lost_ones(result):
    """The legend said "underlined", where no bar was: in grey print all bars were alike."""
    legend, _, rows = page(report_of(result)).partition("<h2>Examples</h2>")[2].partition('<div class="text">')
    assert "▇▇▇ came back" in legend and "░░░ did not" in legend and "underlined" not in legend
    assert set(re.findall(r"<mark>(.*?)</mark>", rows)) == {"▇▇▇"}
    assert set(re.findall(r'<span class="lost">(.*?)</span>', rows)) == {"░░░"}
    assert "underlined words came back" in page(report_of(result, reveal=True))
    assert "of which most words came back" in legend  # 7 of 19 stand above 6 of 6


def test_each_floor_has_a_column(result):
    """Every row of the table said what its two floors are of: nine lines on a telephone."""
    figures = {**result.figures}
    for name, one in figures.items():
        figures[name] = replace(one, floors=dict.fromkeys([OTHER_TEXT, PUBLIC_TEXT] if name == "f1" else [], 0.25))
    table = (
        page(report_of(replace(result, figures=figures))).partition("Attacker: vectors")[2].partition("</table>")[0]
    )
    assert re.findall(r"<th>(.*?)</th>", table) == [
        "", "Figure", "95 % interval", "Floor: another row", "Floor: public sentence", ""
    ]  # fmt: skip
    rows = {row[0]: row[3:5] for row in (re.findall(r"<td>(.*?)</td>", row) for row in table.split("<tr>")[2:])}
    assert rows["F1 of words"] == ["25 %", "25 %"] and rows["content words"] == ["", ""]


def test_a_rule_says_what_its_attacker_holds(result):
    """The rule of the attacker with the encoder said that the text comes back without the encoder."""

    def whole(tier):
        (run,) = sarif(report_of(replace(result, tier=tier)))["runs"]
        return {rule["fullDescription"]["text"] for rule in run["tool"]["driver"]["rules"]}

    pairs = [replace(ENCODER, name="pairs", holds=f"the encoder, and {number} known pairs") for number in (20, 30)]
    (alone,), (judged,), (known,) = map(whole, (result.tier, ENCODER, pairs[0]))
    (alike,) = whole(replace(ENCODER, name="subject"))
    assert "the vectors and has a public checkpoint recovers" in alone and "encoder" not in alone
    assert "public checkpoint and the encoder" in judged and "some of the texts" in known
    assert "other texts on the same subject" in alike
    assert not any("without the encoder" in text for text in (alone, judged, known, alike))
    assert whole(pairs[1]) == {known}, "a rule is the same in every report"


@pytest.mark.parametrize("reveal", [False, True])
def test_marks_of_direction_do_not_turn_the_page(reveal):
    """An id with U+202E in it turned round the figures behind it: "3 of 2" content words."""
    texts = ["parcel \u202edriver\u2066 street\x07", "letter"]
    result = tier_result(texts, ["parcel \u202edriver", "letter"])
    sample = result.sample._replace(ids=["é\u202egnp", "x\ny"], collections=["ma\u200fil", "b"])
    ranking = [Guess(1, "tea\u202e", 0.9, "ma\u200fil", 0, "é\u202egnp", True, 0.0)]
    guesses = Guesses(ranking, [Rates(1, 1, 1, 0.5, 300, 0.01, 30, 0.8, 0.3)], 2)
    report = report_of(replace(result, sample=sample), guesses=guesses, reveal=reveal)
    report.source["name"], report.warnings = "d\u202e.parquet", ["the collection ma\u200fil is left out"]
    text = page(report)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", text)
    name = "<bdi>ma⟨U+200F⟩il: é⟨U+202E⟩gnp</bdi>"
    assert f"row {name}: 2 of 3" in text and f"<td>{name}</td>" in text and "x⟨U+000A⟩y" in text
    assert ("<bdi>tea⟨U+202E⟩</bdi>" in text) == ("recovered: <bdi>parcel ⟨U+202E⟩driver</bdi>" in text) == reveal


@pytest.mark.parametrize("reveal", [False, True])
def test_examples_of_whole_documents_are_cut(reveal):
    """Five documents of a hundred thousand words made a page of seven megabytes."""
    long = "parcel driver " * 5000
    text = page(report_of(tier_result([f"{long}garden", "letter <friend>"], ["parcel", "letter"]), reveal=reveal))
    assert "… and 9,701 more words" in text and "garden" not in text and len(text) < 60_000
    assert text.count("more words") == 1


def test_long_names_do_not_widen_the_page(result):
    """A path, a URL or an id of a hundred characters pushed the whole page off a narrow screen."""
    style = page(report_of(result)).partition("<style>")[2].partition("</style>")[0]
    assert re.search(r"^body \{[^}]*overflow-wrap: anywhere", style, re.M)
    assert re.search(r"^th, td \{[^}]*overflow-wrap: normal", style, re.M)  # tables scroll by themselves


@pytest.mark.parametrize("reveal", [False, True])
def test_filled_texts_are_shown_where_words_are_revealed(result, tmp_path, reveal):
    """The texts that were filled stood in no file, whatever was asked for."""
    texts = ["The <b> dog slept.", "word " * 400]
    report = report_of(result, filled=Filled(2, 2, Figure(0.5, 0.1, 0.9, 1, 2), {}, 0, texts, False), reveal=reveal)
    write_report(report, tmp_path)
    section = page(report).partition("<h2>Redacted text</h2>")[2].partition("<h2>")[0]
    assert ("The &lt;b&gt; dog slept." in section) == ("… and 100 more words" in section) == reveal
    assert "slept" not in (tmp_path / "report.json").read_text("utf-8")
