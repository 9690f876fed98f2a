"""The tab "Redacted": hidden words come back by their vector, another vector's do not, and errors say what to do."""

import re
import unicodedata
from html import unescape

import pytest
import streaming
from parts import refused_html
from redacted import BAR, Attack, Both, attack, checked, notes_of_redacting, redact, tidy, words_of
from redacted_html import both_html, holds_html
from redacted_tab import EXAMPLES, choose, held

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.filled_embinv import NEAR, VERDICTS, Alternative, FilledGap, FilledText
from tests.space.conftest import all_stopped, running

gradio_client = pytest.importorskip("gradio_client", reason="the Space needs gradio: pip install 'embinv[space]'")
SENTENCE, HIDDEN = "My password is hidden under the keyboard.", ["keyboard"]


def both_of(text, keys, words, verdict="likely", probability=0.8):
    """Both attacks as they end with these words in the gaps."""
    hidden = redact(text, keys)
    whole, gaps = "", []
    for piece, word in zip(hidden.pieces, [*words, ""], strict=True):
        whole += piece
        if word:
            other = Alternative("<i>other</i>", (2,), 0.7, 0.004)
            known = word, (1,), len(whole), len(whole) + len(word), BAR, "free", probability
            gaps.append(FilledGap(*known, (other,)))
            whole += word
    filled = FilledText(whole, (), tuple(gaps), 0.912, verdict)
    done = Attack(hidden, filled, [0.5, 0.912], 1.25, {"forward_passes": 3, "surrogate_calls": 97, "encoder_calls": 0})
    return Both(done, Attack(hidden), "The <u>control</u>.")


def shown(html: str) -> str:
    """HTML as a reader sees it."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def test_each_word_can_be_hidden_by_itself():
    """A second "the" that hides the first one; 4,500 cut in three; neighbours whose bars count their words."""
    text = "The dog saw the cat, the 4,500 birds of O’Neil at anna@example.org."
    keys = [word.key for word in words_of(text)]
    assert keys == [
        "The", "dog", "saw", "the", "cat", "the (2)", "4,500", "birds", "of", "O’Neil", "at", "anna@example.org",
    ]  # fmt: skip
    hidden = redact(text, ["the (2)", "4,500", "cat", "anna@example.org"])
    assert hidden.text == "The dog saw the ▇▇▇, ▇▇▇ birds of O’Neil at ▇▇▇."
    assert hidden.hidden == ("cat", "the 4,500", "anna@example.org")
    assert redact(text, []).text == text and redact("", []).hidden == ()


def test_words_that_came_back_are_counted_in_their_own_gaps():
    """A word in another gap is no success; the model's "4, 500" and lower case are."""
    text, keys = "Peter owes Anna 4,500 dollars", ["Peter", "Anna", "4,500"]
    for words, count in (
        (["peter", "anna 4, 500"], 3),
        (["anna", "peter 4500"], 0),
        (["peter", "4, 500 annas"], 2),
    ):
        assert both_of(text, keys, words).own.came_back == (count, 3)


def test_accents_do_not_hide_what_came_back():
    """The model writes "jose", which was no José; typed as a letter and an accent, one name was two words."""
    text = tidy(unicodedata.normalize("NFD", "I met José in Zürich."))
    assert [word.key for word in words_of(text)] == ["I", "met", "José", "in", "Zürich"]
    assert both_of(text, ["José", "Zürich"], ["jose", "zurich"]).own.came_back == (2, 2)


def test_a_visitors_text_is_escaped():
    """A script in the sentence, in a filling, in a runner-up or in the control's sentence must stay text."""
    both = both_of("<script>x</script> met Anna.", ["Anna"], ["<script>"])
    for html in (both_html(both), holds_html(both.own.redacted), refused_html("<script>")):
        assert not re.search(r"<(script|i|u)>", html) and "&lt;script&gt;" in html


def test_the_result_says_how_sure_it_is_in_words():
    """Colour alone tells nobody; 100 % of a guess is a lie; a vector of another text makes no word probable."""
    text = shown(both_html(both_of("Anna met Li.", ["Anna"], ["anna"], "likely", 0.9996)))
    assert "anna > 99 % met Li." in text and "1 of 1 hidden word came back." in text and "other</i> < 1 %" in text
    assert f"Verdict: likely : {VERDICTS['likely']}." in text
    assert "Cosine with the vector: 0.912" in text and "0.500 0.912" in text
    assert "3 forward passes, 97 surrogate calls; 1.2 seconds." in text
    assert "No gap is filled yet." in text  # the control's
    for verdict in ("unrelated", "unread", "literal"):
        assert "%" not in shown(both_html(both_of("Anna met Li.", ["Anna"], ["anna"], verdict)))


@pytest.mark.parametrize(
    "old, keys, new, kept",
    [
        ("saw the cat", ["the"], "the dog saw the cat", ["the (2)"]),
        ("the dog saw the cat", ["the (2)"], "saw the cat", ["the"]),
        ("the dog saw the cat", ["the", "cat"], "the dog saw the bird", ["the"]),
        ("saw the cat", ["cat"], "saw the cats", []),
        ("saw the cat", ["the"], "saw the cat", ["the"]),
        (None, ["the (2)", "bird"], "the dog saw the cat", ["the (2)"]),  # of a link
    ],
)
def test_a_word_stays_hidden_where_the_text_grows(old, keys, new, kept):
    """A bar that moves to another "the", which nobody hid, once words are typed before it."""
    words, holds, seen = choose(new, keys, old)
    assert words.value == kept and holds == holds_html(redact(new, kept)) and seen == new


def test_who_types_on_moves_no_bar():
    """A text that was typed while the words of another came was taken for the one that the boxes are of."""
    assert held("the dog saw the cat", ["the"], "saw the cat")[1] == "saw the cat"


def test_a_link_may_hide_the_second_of_two_words():
    """The words of a link were looked for in the example that it takes the place of."""
    example, text = EXAMPLES[0][1], "the dog saw the cat"
    words, holds, seen = choose(text, ["the (2)"], example)
    assert words.value == ["the (2)"] and seen == text and holds == holds_html(redact(text, ["the (2)"]))


def test_the_first_edit_of_the_example_moves_no_bar(visit):
    """Before any click the page did not know of which text its words were: the bar went to the new first "Boston"."""
    page = visit("Redacted")
    page.get_by_label("Text to redact").fill(f"Boston: {EXAMPLES[0][1]}")  # at once, as it is pasted
    page.wait_for_function("document.querySelectorAll('.words input').length == 9")
    page.locator(".holds", has_text="Boston: Maria Lopez was treated for ▇▇▇ in ▇▇▇.").wait_for()


@pytest.mark.parametrize(
    "text, keys, judge, message",
    [
        ("", [], "surrogate", "Type a sentence first"),
        ("…!", [], "surrogate", "Type a sentence first"),
        ("Anna left.", [], "surrogate", "No word is hidden"),
        ("Anna left.", ["Anna", "left"], "surrogate", "All words are hidden"),
        ("Anna left.", ["Berlin"], "surrogate", "not in the sentence"),
        ("Anna ▇▇▇ left.", ["Anna"], "surrogate", "hidden already: type the whole sentence"),
        ("He was un███able to come.", ["come"], "surrogate", "“███”, where something is hidden already"),
        ("Anna [MASK] left.", ["Anna"], "surrogate", r"holds “\[MASK\]”"),
        ("Anna [SEP] left.", ["Anna"], "surrogate", r"holds \[SEP\], which the encoder takes for its own token"),
        ("The word 犇犇犇 is odd.", ["犇犇犇"], "surrogate", "does not know"),
        ("See hippopotomonstrosesquippedaliophobia there.", ["hippopotomonstrosesquippedaliophobia"], "encoder",
         "at most 6 are tried"),
        ("the dog and the cat and " * 42 + "Anna left.", ["Anna"], "surrogate", "255 tokens; the surrogate .* 254"),
        ("a b c d e f g h i j k l m n", list("acegikm"), "encoder", "7 gaps; at most 6"),
    ],
)  # fmt: skip
def test_what_cannot_be_filled_is_one_line(app, text, keys, judge, message):
    """Each of these gave a stack trace, a search for nothing, or a line for programmers."""
    with pytest.raises(EmbInvError, match=message) as caught:
        checked(app.inverter, text, keys, judge)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("mark", ["[REDACTED]", "___", "*****", "<PERSON>"])
def test_what_is_hidden_already_is_told(mark):
    """A pasted text with marks of its own was embedded with them, as if they were words, and nothing said so."""
    (note,) = notes_of_redacting(f"He told {mark} to come home.")
    assert note.startswith(f"“{mark}” is embedded as it stands")
    assert not notes_of_redacting("He told [him] to <b>come</b> home. 😀")


def test_the_surrogate_tries_no_longer_words_than_it_can_judge(app):
    """With six tokens for each gap it would refuse sentences that it judges well; the encoder reads longer ones."""
    text = "the dog and the cat and " * 41 + "Anna left."
    assert checked(app.inverter, text, ["Anna", "cat"], "surrogate")[1] == 3
    assert checked(app.inverter, text, ["Anna", "cat"], "encoder")[1] == 6


def test_a_visitor_who_leaves_stops_the_filling(app):
    """The thread of a visitor who is gone went on to the end of the search."""
    before = running()
    steps = attack(app.inverter, "Maria met Anna and Peter in Boston.", ["Maria", "Peter", "Boston"], "surrogate")
    assert next(steps).own.filled is None
    next(steps)
    (thread,) = running() - before
    passes = []
    hook = app.inverter.model.register_forward_pre_hook(lambda *_: passes.append(1))
    steps.close()
    thread.join(60)
    hook.remove()
    assert not thread.is_alive() and len(passes) <= 2


def test_a_filling_that_takes_too_long_ends_with_a_line(app, monkeypatch):
    """Its message spoke of candidates and corrections, which this tab does not have."""
    monkeypatch.setattr(streaming, "LONGEST_SECONDS", -1)
    with pytest.raises(EmbInvError, match="hide fewer words"):
        list(attack(app.inverter, SENTENCE, HIDDEN, "surrogate"))


@pytest.mark.slow
@pytest.mark.parametrize("judge", ["surrogate", "encoder"])
def test_the_endpoint_names_what_it_returns(url, judge):
    """An attack whose steps arrive at its end only; a control that was given the sentence's own vector."""
    client = gradio_client.Client(url, verbose=False)
    frames = list(client.submit(SENTENCE, HIDDEN, judge, api_name="/redacted"))
    own, control = frames[-1]["own"], frames[-1]["control"]
    assert own["redacted"] == control["redacted"] == "My password is hidden under the ▇▇▇."
    assert own["text"] == SENTENCE and own["gaps"][0]["text"] == "keyboard"
    assert (own["words_back"], own["hidden_words"], control["words_back"]) == (1, 1, 0)
    assert own["cosine"] > NEAR > 0.6 > control["cosine"] and own["cosines"][-1] == own["cosine"]
    assert control["verdict"] == "unrelated" and own["verdict"] in ("verified", "likely", "undecided")
    assert own["verdict_in_words"] == VERDICTS[own["verdict"]]
    assert own[f"{judge}_calls"] > 0 and (own["encoder_calls"] > 0) == (judge == "encoder")
    states = [(frame["own"]["is_done"], frame["control"]["is_done"]) for frame in frames]
    assert states == sorted(states) and {(False, False), (True, False), (True, True)} == set(states)


def test_a_text_over_its_limit_takes_the_old_ones_place(visit):
    """The old sentence's words and its result stood beside the new text, and a toast went away by itself."""
    page = visit("Redacted")
    page.locator(".attack[data-done=true]").nth(1).wait_for()
    page.get_by_label("Text to redact").fill("word and cat " * 60)
    line = "at most 600 characters are read; this has more"
    page.locator("#redacted-holds .refused", has_text=line).wait_for()
    page.wait_for_function("!document.querySelector('.words input')")
    page.get_by_role("button", name="Fill the gaps").click()
    page.locator("#redacted-message .refused", has_text=line).wait_for()
    assert not page.locator(".attack").count() and not page.get_by_test_id("toast-body").count()


def slow_line(page):
    """Holds back what the page asks the server, its runs apart, until what this gives is called."""
    held = []

    def answer():
        nonlocal held
        routes, held = held, None
        for route in routes:
            route.continue_()

    page.route("**/run/predict*", lambda route: route.continue_() if held is None else held.append(route))
    return answer


def test_a_slow_line_leaves_no_word_hidden_that_is_not_there(visit):
    """The old sentence's words were sent with the new one and refused as "not in the sentence", which nobody chose."""
    page = visit("Redacted")
    page.locator(".attack[data-done=true]").nth(1).wait_for()
    slow_line(page)
    page.get_by_label("Text to redact").fill(SENTENCE)
    page.get_by_role("button", name="Fill the gaps").click()
    page.locator("#redacted-message .refused", has_text="No word is hidden: click the words to hide.").wait_for()


def test_the_attacker_holds_what_the_boxes_say(visit):
    """A click on a word of the old text, before the new one's stood there, hid a word whose box was empty."""
    page = visit("Redacted")
    page.locator(".attack[data-done=true]").nth(1).wait_for()
    answer = slow_line(page)
    page.get_by_label("Text to redact").fill("Maria Lopez slept.")
    with page.expect_request("**/run/predict*"):
        page.get_by_role("checkbox", name="Lopez").check()
    answer()
    page.get_by_role("checkbox", name="slept").wait_for()
    page.wait_for_function(
        "document.querySelectorAll('.holds .bar').length == document.querySelectorAll('.words :checked').length"
    )


def has_bars(page, count: int) -> None:
    page.wait_for_function(f"document.querySelectorAll('.holds .bar').length == {count}")


@pytest.mark.slow
def test_a_visitor_hides_words_and_sees_them_come_back(app, visit, hold, monkeypatch):
    """The whole walk on a phone, on one page: a result on arrival, words by click and key, the filling, each error."""
    page = visit("Redacted", 390, 844)
    done = page.locator(".attack[data-done=true]")
    done.nth(1).wait_for()  # a result stands there when one arrives
    assert "hidden words came back" in done.first.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    text, go = page.get_by_label("Text to redact"), page.get_by_role("button", name="Fill the gaps")
    refused = page.locator(".refused")

    text.fill(f"<b>{SENTENCE}")
    page.get_by_role("checkbox", name="keyboard").wait_for()
    has_bars(page, 0)
    go.click()
    refused.wait_for()  # an error takes the old result's place
    assert "No word is hidden" in refused.inner_text() and page.locator(".attack").count() == 0
    for word in page.get_by_role("checkbox").all():
        word.focus()
        word.press("Space")
    page.wait_for_function("document.querySelectorAll('.words :checked').length == 8")
    has_bars(page, 2)
    go.click()
    page.get_by_text("All words are hidden").wait_for()

    text.fill(SENTENCE)
    page.wait_for_function("document.querySelectorAll('.words input').length == 7")
    for word in page.get_by_role("checkbox").all()[:-1]:
        word.dispatch_event("click")
    page.wait_for_function("document.querySelectorAll('.words :checked').length == 1")
    has_bars(page, 1)
    holds = "The attacker holds: My password is hidden under the ▇▇▇."  # the line follows the clicks one by one
    page.wait_for_function(f"document.querySelector('.holds').innerText.startsWith('{holds}')")
    go.click()
    done.nth(1).wait_for()
    own, control = (part.inner_text() for part in done.all())
    assert refused.count() == 0
    assert "1 of 1 hidden word came back" in own and "keyboard" in own and "%" in own
    assert "0 of 1" in control and "keyboard" not in control and "unrelated" in control
    cosines = [float(re.search(r"Cosine with the vector: (\d\.\d+)", part).group(1)) for part in (own, control)]
    assert cosines[0] > 0.9 > 0.5 > cosines[1]
    assert 0 <= page.locator(".attack").first.bounding_box()["y"] < 400  # the page has gone there
    heard = page.locator("#redacted-message [aria-live=polite] .heard")
    heard.wait_for(state="attached")
    back = "of 1 hidden word came back."
    assert heard.inner_text() == f"Done. 1 {back} With another vector: 0 {back}"

    fill = app.inverter.model.fill  # the search is over before a busy browser shows that it began, unless it is held

    def held(*args, on_step, **kwargs):
        return fill(*args, on_step=lambda texts: (on_step(texts), hold.wait(60)), **kwargs)

    monkeypatch.setattr(app.inverter.model, "fill", held)
    page.get_by_role("button", name="Letter").click()
    has_bars(page, 2)
    go.click()
    page.get_by_text("Searching").first.wait_for()
    page.get_by_role("button", name="Stop").locator("visible=true").click()
    page.get_by_text("Stopped.").wait_for()
    assert not page.get_by_text("Searching").locator("visible=true").count()  # it does not any more
    hold.set()
    assert all_stopped()
    assert "▇▇▇" in page.locator(".attack").nth(1).inner_text()  # the control had not begun
    text.fill("Maria Lopez und ich sind nicht mit dem Auto gefahren.")
    page.wait_for_function("document.querySelectorAll('.words input').length == 10")
    go.click()
    page.get_by_text("This does not look like English").wait_for()
