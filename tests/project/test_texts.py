"""README, model card and docs: every figure is from the JSON of results, every sentence about one is true."""

import copy
import re
from pathlib import Path

import measured
import pytest
import results
from claims import holds
from ladder import DEMO, draw, words
from tables import table

ROOT = Path(__file__).parents[2]
TEXTS = results.texts()
README, CARD = ROOT / "README.md", ROOT / "checkpoints" / "embinv-minilm" / "README.md"
# the audit's page has the thresholds of its command, and figures of single runs
PAGES = [path for path in TEXTS if path not in (README, CARD) and path.name != "audit.md"]
MOST_WORDS = 1200


@pytest.fixture
def changed(monkeypatch):
    """Results with one value changed, as new weights will change them; the files stay."""

    def change(name: str, edit):
        value = copy.deepcopy(measured.results(name))
        edit(value)
        original = measured.results
        monkeypatch.setattr(measured, "results", lambda wanted: value if wanted == name else original(wanted))

    return change


def prose(text: str) -> str:
    """What is written by hand: no markers with their contents, code, targets of links, front matter and HTML."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
    text = results.MARKER.sub("", text)
    return re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|<[^>]*>", "", text, flags=re.S)


def shown(text: str) -> str:
    """A text without comments, as a reader sees it."""
    return re.sub(r"<!--.*?-->", "", text, flags=re.S)


def test_texts_are_what_the_results_make_them():
    """A table was copied into README and card by hand, and the two parted."""
    for path, text in results.made().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.relative_to(ROOT)}: run `make results`"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_marker_is_filled(path):
    """A marker with a typing error would keep its old figure for good."""
    text = path.read_text(encoding="utf-8")
    opened, closed = re.findall("<!--[^>]*:[^>]*-->", text), re.findall("<!--/(?!output)", text)
    assert len(results.MARKER.findall(text)) == len(opened) == len(closed)
    assert "…<!--" not in text
    # a line that starts with a comment ends the paragraph, on GitHub
    assert not re.findall(r"^ *<!--figure.*", text, flags=re.M)


def test_new_results_reach_every_text(changed):
    """A figure that is cached or not looked up would stay as it was when the weights are replaced."""

    def edit(value):
        value["rows"][0]["scores"]["token F1"] = {"mean": 12.34, "low": 11.11, "high": 13.33}

    changed("evaluation", edit)
    names = results.registry()
    for path in (README, CARD, ROOT / "docs" / "results" / "index.md"):
        filled = results.fill(path.read_text(encoding="utf-8"), names)
        assert "12.3 [11.1, 13.3]" in filled and filled != path.read_text(encoding="utf-8")


def test_claims_hold():
    """The line that no weight beats 1/t stood above a table that said the opposite."""
    assert results.broken_claims() == []


def test_a_claim_that_fails_is_named(changed):
    """Claims that are looked up wrongly, or compared with themselves, would hold whatever the results are."""

    def edit(value):
        value["16 tokens"]["preset standard"]["scores"]["BLEU"] = {"mean": 10.0, "low": 9.0, "high": 11.0}

    changed("quality_cost", edit)
    broken = {name for name, _ in results.broken_claims()}
    assert {"headline_loop", "loop_16", "readme_loop"} <= broken and "depth" not in broken


@pytest.mark.parametrize(
    "claim, truth",
    [
        ("a > b", True),
        ("a >> b", False),
        ("a ~ b", True),
        ("a >> c", True),
        ("a ~ c", False),
        ("c > a", False),
        ("3 > a", True),
        ("c | mean > 0.5", True),
    ],
)
def test_claims_compare_means_and_intervals(monkeypatch, claim, truth):
    """Means apart and intervals apart are two different sentences."""
    rows = {"a": (2.0, 1.5, 2.5), "b": (1.8, 1.4, 2.2), "c": (1.0, 0.9, 1.1)}
    scores = {name: dict(zip(("mean", "low", "high"), values, strict=True)) for name, values in rows.items()}
    monkeypatch.setattr(measured, "results", lambda name: scores)
    assert holds(claim, "file") is truth


def test_unknown_names_are_errors():
    """A misspelt name must not leave the old figure in place."""
    names = results.registry()
    for text in ("<!--figure:open_f2-->1<!--/figure-->", "<!--table:nothing-->1<!--/table-->"):
        with pytest.raises(KeyError):
            results.fill(text, names)
    for path in (
        "evaluation | inversion | F2",
        "evaluations | inversion",
        "evaluation | floor",
        "evaluation | inversion",
    ):
        with pytest.raises(KeyError):
            measured.mean(path)


def test_a_row_is_picked_by_name_and_value():
    """Two rows of one name, at two batch sizes, must not be taken for one another."""
    rows = measured.results("throughput_cpu")["rows"]
    by_size = {row["batch_size"]: row["ms"] for row in rows if row["what"] == "inversion"}
    assert len(set(by_size.values())) == len(by_size) > 1
    for size, milliseconds in by_size.items():
        assert measured.mean(f"throughput_cpu | inversion | batch_size={size} | ms") == milliseconds
    with pytest.raises(KeyError, match="list"):
        measured.mean("throughput_cpu | inversion")


def test_every_name_is_used():
    """A figure or table that no text shows is a line that nobody checks."""
    names = results.registry()
    markers = [match[:2] for path in TEXTS for match in results.MARKER.findall(path.read_text(encoding="utf-8"))]
    assert {name.partition(".")[0] for kind, name in markers if kind == "figure"} == set(names["figures"])
    assert {name for kind, name in markers if kind == "table"} == set(names["tables"])


def test_the_papers_figures_stand_in_rows_that_exist():
    """A row of the paper under another name than ours would silently miss its figures."""
    entries = [entry for entry in results.registry()["tables"].values() if "paper" in entry]
    assert entries
    for entry in entries:
        lines = table(entry).splitlines()
        for name, cell in entry["paper"].items():
            assert any(line.startswith(f"| {name} |") and line.endswith(f"| {cell} |") for line in lines), name


# licences, names of models, papers, and the level of the intervals
NO_FIGURES = r"CC BY(-SA)? \d\.\d|\b[A-Za-z]+-\d\.\d\w?|arXiv \d{4}\.\d{5}|95 % (?=(bootstrap\s)?interval)"
# a row that begins with a setting's name has its values
SETTING = r"^\| `[^`]+` \|.*$"


@pytest.mark.parametrize("path", [README, CARD], ids=["README", "card"])
def test_no_figure_is_written_by_hand(path):
    """A figure outside a marker is of weights that are gone, sooner or later."""
    text = re.sub(NO_FIGURES, "", prose(path.read_text(encoding="utf-8")))
    assert re.findall(r"[^\n]*\d+(?:[.,]\d+| ?%)[^\n]*", text) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_figure_of_a_page_is_written_by_hand(path):
    """The same in the docs: a share, a score or a rate stands in a marker, and a setting's value in backticks."""
    rows_left = re.sub(SETTING, "", path.read_text(encoding="utf-8"), flags=re.M)
    text = re.sub(NO_FIGURES, "", prose(rows_left))
    assert re.findall(r"[^\n]*\d(?:\.\d| ?%|\d* \w+ (?:a|per) second)[^\n]*", text) == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_pictures_and_pages_that_a_text_names_exist(path):
    """A picture that was renamed is a broken square on the first page."""
    text = path.read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text)]
    for target in targets:
        assert not target or re.match("https://", target) or (path.parent / target).exists(), target


def test_readme_is_short():
    """It had grown to four thousand words, and nobody reached the search."""
    assert len(shown(README.read_text(encoding="utf-8")).split()) <= MOST_WORDS


def test_make_demo_runs_what_the_readme_shows():
    """The demo's output stood in the README under a command that had changed."""
    recipe = re.search(r"^demo: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.M)[1]
    assert [line.strip().removeprefix("$(BIN)/") for line in recipe.splitlines()] == list(DEMO)
    assert [run["command"] for run in measured.results("ladder")["demo"]] == list(DEMO)
    assert f"$ {DEMO[0]}\n" in README.read_text(encoding="utf-8")


def test_the_ladder_marks_words_in_the_originals_order():
    """A right word at the wrong end must not look recovered; a stranger's text must not become markup."""
    drawn = words("a dog <b> saw the man.", "The man saw a dog.")
    assert drawn.count('class="right"') + drawn.count('class="wrong"') == 6
    assert '<tspan class="wrong">&lt;b&gt;</tspan>' in drawn
    assert words("word " * 40, "x").count("word") < 40 and "…" in words("word " * 40, "x")
    rung = {"name": "draft", "text": "x & y", "cosine": 0.5, "passes": 1, "encoder_calls": 0, "surrogate_calls": 0}
    picture = draw({"sentence": "<x>", "rungs": [rung]})
    assert "&lt;x&gt;" in picture and "x &amp; y" in picture and "prefers-color-scheme: dark" in picture
    assert "1 forward pass<" in picture and "0.50" in picture
