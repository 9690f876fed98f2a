"""The tab "What leaks": two attackers, what protects against them, and what the protection costs the search."""

import re
from dataclasses import replace
from html import unescape

import leaks as leaks_module
import numpy as np
import pytest
from inverter import Inverter
from leaks import ATTACKERS, TIERS, Leaks, leak, store
from leaks_html import counter_html, leaks_html
from protection import Protection, public_vectors, recall
from texts import Reading

from modeling_embinv.audit import protections
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.presets_embinv import PRESETS
from tests.audit.conftest import entities
from tests.space.conftest import all_stopped

gradio_client = pytest.importorskip("gradio_client", reason="the Space needs gradio: pip install 'embinv[space]'")
ALONE, WITH_ENCODER = ATTACKERS.values()
LINES = "The transfer of 4,500 dollars failed.\n\nMy son is afraid of dogs."


def leaks_of(text: str, alone: str, with_encoder: str, **kinds: str) -> Leaks:
    """A line that both attackers have tried; its entities as kind="words"."""
    found = Leaks([Reading(text, [1], ())], [entities(text, **kinds)], ["Dogs paid."], 0.93, 600, 0.997)
    found.recovered = {"surrogate": [alone], "encoder": [with_encoder]}
    return found


def shown(html: str) -> str:
    """HTML as a reader sees it."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def vectors_of(app, *texts: str) -> np.ndarray:
    return app.inverter.embed(list(texts)).numpy()


def test_two_equal_columns_are_explained():
    """With the preset quick both attackers had the same texts, and the page looked as if the encoder were no use."""
    found = leaks_of("Dogs slept.", "dogs slept", "dogs slept")
    assert "both attackers write the same" in counter_html(found, "quick")
    assert "both attackers" not in counter_html(found, "standard")


def test_noise_rounding_and_cutting_do_what_they_say(app):
    """A slider that changes nothing would tell visitors that noise is no use."""
    vectors = vectors_of(app, "We will meet at the station on Friday evening.", "The dog slept.")

    def cosine(protection: Protection) -> float:
        return float((protection.stored(vectors) * vectors).sum(axis=1).mean())

    cosines = [cosine(Protection(noise)) for noise in (0.0, 0.01, 0.05, 0.1)]
    assert cosines[0] > 0.9999 and cosines == sorted(cosines, reverse=True) and cosines[-1] < 0.6
    assert 0.999 < cosine(Protection(is_int8=True)) < 1 - 1e-7
    cut = Protection(0.01, True, 96).stored(vectors)
    assert (cut[:, 96:] == 0).all() and np.allclose(np.linalg.norm(cut, axis=1), 1)
    audits = protections.noise(0.03)(vectors, np.random.default_rng(0))
    assert np.allclose(Protection(0.03).stored(vectors), audits / np.linalg.norm(audits, axis=1, keepdims=True))


def test_recall_is_measured(app):
    """That the search gets worse "the further below 1" was a remark; it is a number, and noise must lower it."""
    others = public_vectors(app.inverter)
    lines = vectors_of(app, "The ship sank in the storm.", "She likes to read old books.")
    found = [recall(lines, others, Protection(noise)) for noise in (0.0, 0.02, 0.1)]
    assert found[0] == 1.0 and found == sorted(found, reverse=True) and found[-1] < 0.5
    assert recall(lines, others, Protection(dims=96)) < 1.0


def test_a_copied_line_spoils_no_search(app):
    """Each copy has noise of its own, so which ten of 50 equal vectors are nearest is chance: recall fell to 0.2."""
    others, line = public_vectors(app.inverter), vectors_of(app, "My son is afraid of dogs.")
    once, often = (recall(np.repeat(line, count, axis=0), others, Protection(0.005)) for count in (1, 50))
    assert once == often > 0.8


def test_two_numbers_stand_there():
    """It said "whoever copies these vectors, and nothing else", though the encoder had helped."""
    html = leaks_html(leaks_of("Anna paid 40 dollars.", "anna paid", "anna paid 40 dollar"))
    assert f"{ALONE} <b>2 of 4</b>; {WITH_ENCODER} <b>3 of 4</b>" in html and "<b>93 %</b> (recall@10" in html
    assert '<mark class="leaked">Anna' in html and '<mark class="leaked-encoder">40' in html
    assert '<mark class="lost">dollars' in html
    assert "<script>" not in leaks_html(leaks_of("<script>x</script>", "<script>", "<b>"))
    assert "no content words" in leaks_html(leaks_of("It is on.", "on", "on"))


def test_figures_are_the_audits():
    """Figures of the page's own would contradict `embinv audit`: intervals, guesses without the vector, kinds."""
    found = leaks_of(
        "Anna Berg paid 40 dollars.", "anna paid", "anna berg paid", names="Anna Berg", money="40 dollars"
    )
    html = shown(leaks_html(found))
    assert "Content words 2 of 5 3 of 5 20 %" in html  # "paid" stands in the guess
    assert "Names 0 of 1 1 of 1 0 %" in html
    many = " ".join(f"word{number}" for number in range(10))
    assert re.search(
        r"Content words 0 of 10, 0 % \(0 to \d+\) 10 of 10, 100 % \(", shown(leaks_html(leaks_of(many, "", many)))
    )
    told = found.as_json()["attackers"]
    assert list(told) == [ALONE, WITH_ENCODER] and told[WITH_ENCODER]["figures"]["names"]["hits"] == 1
    assert told[ALONE]["holds"] == TIERS["surrogate"].holds and told[ALONE]["figures"]["whole lines"]["hits"] == 0


def test_a_copy_of_a_line_is_no_other_text():
    """Of lines pasted twice the floor "vector of another text" was the line itself, and as high as the attack."""
    copies = ["Anna paid.", "Anna paid.", "Dogs bark."]
    found = Leaks([Reading(text, [1], ()) for text in copies], [[]] * 3, ["It rains."] * 3, 0.9, 600, 1.0)
    found.recovered = {"encoder": copies}
    words = found.figures("encoder")["content words"]
    assert (words.hits, words.count) == (6, 6) and max(words.floors.values()) == 0


def test_kinds_are_found_where_a_finder_is_installed(app, monkeypatch):
    """A Space without Presidio that does not start, or one with it that shows no kinds."""

    class Names:
        def find(self, texts):
            return [entities(text, names="Anna") for text in texts]

    for finder, count in ((Names(), 1), (None, 0)):
        monkeypatch.setattr(leaks_module, "finder", lambda found=finder: found)
        found, stored = store(app.inverter, [Reading("Anna paid.", [1], ())], Protection())
        assert [len(line) for line in found.entities] == [count] and stored.shape == (1, 384)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "Paste a line"),
        ("\n \n", "Paste a line"),
        ("a dog\n" * 51, "51 lines; at most 50"),
        ("a dog\n😀", "Line 2:"),
    ],
)
def test_lines_that_cannot_be_attacked_are_named(app, text, message):
    """Fifty lines, of which one has no word: which one?"""
    with pytest.raises(EmbInvError, match=message):
        next(leak(app.inverter, text, Protection(), "quick"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:this model inverts vectors of")  # these are strongly noised
def test_the_encoder_helps_and_noise_protects(url, monkeypatch):
    """Both attackers by one search, noise that protects from neither, or lines that were swapped."""
    generate, searched = Inverter.generate, {}

    def seen(self, *given, feedback=None, **settings):
        output = generate(self, *given, feedback=feedback, **settings)
        searched[ATTACKERS["encoder" if callable(feedback) else feedback]] = self.decode(output.sequences)
        return output

    monkeypatch.setattr(Inverter, "generate", seen)
    narrow = {"num_candidates": 8, "num_corrections": 1, "num_beams": 1, "num_proposals": 8, "num_hops": 1}
    short = {**PRESETS["standard"].settings, **narrow}
    monkeypatch.setitem(PRESETS, "standard", replace(PRESETS["standard"], settings=short))
    client = gradio_client.Client(url, verbose=False)
    lines = LINES.replace("failed", "to Hartmann failed again")  # no attacker recovers all of it
    frames = list(client.submit(lines, 0.0, "float32", "384", "standard", api_name="/leaks"))
    last, attackers = frames[-1], frames[-1]["attackers"]
    assert last["lines"] == [line for line in lines.splitlines() if line] and last["recall_at_10"] == 1.0
    assert list(attackers) == [ALONE, WITH_ENCODER] and last["is_done"] and not frames[0]["is_done"]
    for found in attackers.values():
        words = found["figures"]["content words"]
        assert words["count"] == 9 and words["hits"] >= 4 and "dogs" in found["texts"][1]
        assert max(words["floors"].values()) < words["value"]
    assert {name: found["texts"] for name, found in attackers.items()} == searched
    monkeypatch.setattr(Inverter, "generate", generate)
    noised = client.predict(lines, 0.1, "int8", "384", "quick", api_name="/leaks")
    words = [answer["attackers"][ALONE]["figures"]["content words"]["hits"] for answer in (noised, last)]
    assert words[0] < words[1]
    assert noised["recall_at_10"] < 0.6


@pytest.mark.slow
def test_a_visitor_sees_what_leaks(visit, hold, monkeypatch):
    """The whole walk: a result on arrival, an error, lines as they are attacked, Stop."""
    from playwright.sync_api import TimeoutError as TimedOut

    page = visit("What leaks", 390, 844)
    done = page.locator(".leaks[data-done=true]")
    done.wait_for()
    assert "recall@10" in done.inner_text()
    text, go = page.get_by_label("Text, up to 50 lines"), page.get_by_role("button", name="What leaks?")
    text.fill("a dog\n" * 51)
    go.click()
    page.locator("#leaks-message .refused", has_text="at most 50").wait_for()
    assert page.locator(".leaks").count() == 0
    page.get_by_label("quick").locator("visible=true").check()
    text.fill(LINES)
    go.click()
    try:
        done.wait_for()
    except TimedOut as error:  # seen twice in hundreds of runs: what stands there says why
        state = page.evaluate("JSON.stringify(window['run of leaks-go'])")
        pytest.fail(f"{error}; run {state}, button {go.is_enabled()}: {page.locator('body').inner_text()}")
    assert page.locator(".leaks .lines > li").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    attacked, begun = leaks_module._attacked, []

    def held(*arguments):
        begun.append(1)
        if len(begun) > 2:  # the first lines, by both attackers
            hold.wait(60)
        return attacked(*arguments)

    monkeypatch.setattr(leaks_module, "_attacked", held)
    text.fill("The dog slept in the garden.\n" * 40)
    go.click()
    page.get_by_text("of 40 lines attacked").wait_for()
    page.get_by_role("button", name="Stop").locator("visible=true").click()
    page.get_by_text("Stopped.").wait_for()
    # what was said of the kept result was gone
    assert "of 40 lines attacked" in page.locator("#leaks-message").inner_text()
    hold.set()
    assert all_stopped()
