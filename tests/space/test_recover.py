"""The tab "Recover": rounds stream, the cosine is said in words, and what a text cannot be is told in one line."""

import re
from html import unescape

import inverter as inverter_module
import pytest
import streaming
from inverter import OWN_VERDICTS, Draft, Result
from recover import Recovery, recover
from recover_html import draft_html, percent_of, recovery_html
from texts import Reading, looks_foreign, read_text
from words import content_words

from modeling_embinv.audit.findings import measure
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.presets_embinv import PRESETS
from tests.space.conftest import ENDLESS, all_stopped, running, wait_until

gradio_client = pytest.importorskip("gradio_client", reason="the Space needs gradio: pip install 'embinv[space]'")
SENTENCE = "We will meet at the station on Friday evening."


def shown(html: str) -> str:
    """HTML as a reader sees it."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def recovery_of(original: str, text: str, cosine: float, confidence: float = 0.1) -> Recovery:
    """A recovery that has ended with this text."""
    pieces = text.split()
    drafts = [
        Draft("draft, nothing written", [None] * len(pieces), None, [False] * len(pieces)),
        Draft("round 1 of 5", pieces, None, [False] * len(pieces), cosine / 2),
        Draft("result", pieces, [confidence] * len(pieces), [False] * len(pieces), cosine),
    ]
    result = Result(text, [1], 41, 1.25, cosine, 0.5, 0, 293)
    return Recovery(Reading(original, [1], ()), drafts, result)


def test_words_are_marked_by_what_came_back():
    """Parts of a number, another form of a word, a word in capitals; the headline must count what the audit counts."""
    text = "Maria Lopez paid 4,500 dollars and treated 2 dogs. Yesterday Maria slept."
    recovered = "maria paid 4, 500 dollar for a treatment of 2 dogs"
    found = content_words(text, recovered)
    assert [(text[word.start : word.end], word.state) for word in found] == [
        ("Maria", "leaked"), ("Lopez", "lost"), ("paid", "leaked"), ("4", "leaked"), ("500", "leaked"),
        ("dollars", "close"), ("treated", "close"), ("2", "leaked"), ("dogs", "leaked"), ("Yesterday", "lost"),
        ("Maria", "leaked"), ("slept", "lost"),
    ]  # fmt: skip
    figure = measure([text], [recovered], {})["words"]
    assert recovery_of(text, recovered, 0.9).came_back == (figure.hits, figure.count) == (6, 11)


def test_five_letters_alone_are_no_form_of_a_word():
    """Internet and interest made interview, internal and international close; one digit more made a number close."""
    text, recovered = "interview internal international 1234567 hiding", "internet interest 1234568 hidings"
    states = [word.state for word in content_words(text, recovered)]
    assert states == ["lost", "lost", "lost", "lost", "close"]


@pytest.mark.parametrize("cosine, name", [(1.0, "verified"), (0.95, "close"), (0.72, "gist"), (0.08, "unrelated")])
def test_a_cosine_is_said_in_words(cosine, name):
    """A fluent text with a cosine of 0.08 looked like a success; visitors do not know what 0.72 means."""
    text = shown(recovery_html(recovery_of("Anna met Li.", "li met anna", cosine)))
    assert f"Verdict: {name} : {OWN_VERDICTS[name]} (cosine {cosine:.3f} by the encoder)." in text
    assert "another encoder" not in text  # of a Japanese sentence the page said so, whose encoder is its own


def test_the_result_says_what_leaked_and_how_sure_it_is():
    """Verified text was painted doubtful; the headline was tokens in place, 0 % where all words leaked."""
    html = recovery_html(recovery_of("Anna met Li.", "li met anna", 1.0))
    text = shown(html)
    assert "Content words recovered: 3 of 3 ." in text and "verified : almost certainly" in text
    assert html.count('<mark class="leaked">') == 4  # three words and the legend
    assert 'class="p1"' not in html.partition('class="headline"')[0]  # the vector has shown that the text is right
    assert "50 % of the original’s tokens stand at their own position." in text and "li 10 %" in text
    assert "41 forward passes, 293 surrogate calls; 1.25 seconds." in text
    doubtful = recovery_html(recovery_of("Anna met Li.", "li met bob", 0.72))
    assert doubtful.partition('class="headline"')[0].count('class="p1"') == 3
    assert "2 of 3" in shown(doubtful) and "not recovered" in shown(doubtful)


def test_a_share_is_whole_only_if_nothing_is_missing():
    """299 of 300 words were "100 %", and one of 600 "0 %"."""
    assert [percent_of(share) for share in (0, 1 / 600, 0.005, 0.5, 0.995, 299 / 300, 1)] == [
        "0 %", "< 1 %", "< 1 %", "50 %", "> 99 %", "> 99 %", "100 %",
    ]  # fmt: skip


def test_the_replay_holds_every_step():
    """The rounds of the closed loop, the best show there is, were thrown away."""
    html = recovery_html(recovery_of("Anna met Li.", "li met anna", 0.8))
    assert re.findall(r'data-label="([^"]+)"', html) == [
        "draft, nothing written", "round 1 of 5, cosine 0.400", "result, cosine 0.800",
    ]  # fmt: skip
    assert html.count('" hidden>') == 2 and 'max="2" value="2"' in html


def test_a_visitors_text_is_escaped():
    """A pasted script must stay text, in the original as in what came back."""
    html = recovery_html(recovery_of("<script>alert(1)</script> Bob", "<script> bob", 0.5))
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "<script>" not in draft_html(Draft("result", ["<script>"], [0.5], [False]))


@pytest.mark.parametrize(
    "text, is_foreign",
    [
        (SENTENCE, False), ("Mein Passwort ist unter der Tastatur.", True), ("我们在车站见面。", True),
        ("سنلتقي في المحطة", True), ("Mon mot de passe est dans la cuisine.", True),
        ("José met Zoë in a café.", False), ("La clave está debajo de los libros.", True), ("4,500 $", False),
    ],
)  # fmt: skip
def test_another_language_is_said(text, is_foreign):
    """Chinese came back as "you do very in beijing." and German as "ge - gehar -", and nothing said why."""
    assert looks_foreign(text) == is_foreign


def test_what_a_text_cannot_be_is_told(app):
    """Emoji came back as "." with 50 % of the tokens in place; a long text was cut without its words."""
    for text, message in (("", "Type a sentence"), (" \n", "Type a sentence"), ("😀😀🎉", "knows none of these")):
        with pytest.raises(EmbInvError, match=message):
            read_text(app.inverter, text)
    with pytest.raises(EmbInvError, match=r"holds \[CLS\], which the encoder takes for its own token"):
        read_text(app.inverter, "A [CLS] dog")  # it counted as a word that did not come back
    assert read_text(app.inverter, SENTENCE).notes == ()
    (note,) = read_text(app.inverter, "A dog 😀 slept.").notes
    assert note == "The model does not know 😀: that cannot come back."
    (note,) = read_text(app.inverter, f"The dog of {'a' * 10_000} slept.").notes  # it was repeated whole
    assert note == f"The model does not know {'a' * 30}…: that cannot come back."
    long = read_text(app.inverter, "The Dog sleeps. " * 1000)
    assert len(long.ids) == app.inverter.max_tokens and long.text.startswith("The Dog sleeps. The")
    assert long.notes == (f"Only the first 31 tokens are read: “{long.text}”",)
    cut, ids, _ = app.inverter.cut("The Dog sleeps. " * 1000)
    assert app.inverter.cut(cut) == (cut, ids, False)


def test_a_visitor_who_leaves_stops_the_search(app):
    """The thread of a visitor who is gone went on to the end of the search."""
    before = running()
    steps = recover(app.inverter, ENDLESS, "thorough", "surrogate")
    next(steps)
    (thread,) = running() - before
    passes = []
    hook = app.inverter.model.register_forward_pre_hook(lambda *_: passes.append(1))
    steps.close()
    thread.join(60)
    hook.remove()
    assert not thread.is_alive() and len(passes) <= 2
    *_, last = filter(None, recover(app.inverter, SENTENCE, "quick", "surrogate"))
    assert last.result.text  # the next one is not stopped


def test_a_search_that_takes_too_long_ends_with_a_line(app, monkeypatch):
    """The slowest settings take a quarter of an hour of a processor that two visitors share."""
    monkeypatch.setattr(streaming, "LONGEST_SECONDS", -1)
    with pytest.raises(EmbInvError, match="choose a faster preset"):
        list(recover(app.inverter, SENTENCE, "standard", "surrogate"))


@pytest.mark.slow
def test_what_was_found_before_the_time_was_over_stays(app, visit, monkeypatch):
    """The time limit threw away all that stood there, which Stop a second earlier would have kept."""
    page = visit("Recover")
    page.locator(".recovery[data-done=true]").wait_for()
    monkeypatch.setattr(streaming, "LONGEST_SECONDS", 2)
    page.get_by_label("thorough").locator("visible=true").check()
    page.get_by_label("Sentence").fill("The judge lent her bicycle to a nervous witness.")
    page.get_by_role("button", name="Recover it").locator("visible=true").click()
    page.locator("#recover-message .refused", has_text="Stopped after 2 seconds").wait_for()
    assert "bicycle" in page.locator(".recovery:not([data-done=true]) .original").inner_text()


@pytest.mark.slow
def test_rounds_arrive_in_order_and_the_time_is_the_models(url):
    """A still picture for 50 seconds of search; milliseconds that were the page's own sleeps."""
    client = gradio_client.Client(url, verbose=False)
    sentence = "The judge lent her bicycle to a nervous witness."  # no draft of it is right
    frames = list(client.submit(sentence, "standard", "surrogate", api_name="/recover"))
    last = frames[-1]
    labels = [step["label"] for step in last["steps"]]
    total = PRESETS["standard"].settings["num_corrections"]
    rounds = [label for label in labels if label.startswith("round")]
    assert rounds == [f"round {number} of {total}" for number in range(1, len(rounds) + 1)]
    assert 1 <= len(rounds) <= total
    assert labels[0] == "draft, nothing written" and labels[-1] == "result" and "best candidate" in labels
    masked = [step["masked"] for step in last["steps"]]
    assert masked == sorted(masked, reverse=True) and masked[0] == 32 and masked[-1] == 0
    seconds = [step["seconds"] for step in last["steps"]]
    assert seconds == sorted(seconds) and seconds[-1] <= last["seconds"]
    cosines = [step["cosine"] for step in last["steps"] if step["cosine"] is not None]
    assert cosines[-1] > cosines[0] and last["cosine"] > 0.8
    assert len(frames) > len(rounds)  # each round was sent when it was made
    assert last["content_words"] == 5 and last["words_recovered"] >= 4 and last["surrogate_calls"] > 0
    assert last["is_done"] and not frames[0]["is_done"] and last["verdict"] in ("gist", "close", "verified")


def test_the_buttons_say_what_they_would_do(app, visit, hold, monkeypatch):
    """Stop said "Stopped." beside a finished result; a press on the other button during a run was lost in silence."""
    page = visit("Recover")
    done, text = page.locator(".recovery[data-done=true]"), page.get_by_label("Sentence")
    go, stop = (page.get_by_role("button", name=name).locator("visible=true") for name in ("Recover it", "Stop"))
    done.wait_for()
    assert go.is_enabled() and stop.is_disabled()
    page.get_by_label("quick").locator("visible=true").check()
    generate = app.inverter.generate

    def held(*arguments, **settings):
        hold.wait(60)
        return generate(*arguments, **settings)

    monkeypatch.setattr(app.inverter, "generate", held)
    go.click()
    page.wait_for_function("document.querySelector('#recover-go').disabled")
    stop.click()
    page.locator("#recover-message", has_text="Stopped.").wait_for()
    page.wait_for_function("!document.querySelector('#recover-go').disabled")
    assert stop.is_disabled()
    hold.set()
    text.fill("The dog slept.")
    go.click()  # soon after Stop
    done.locator(".original", has_text="dog").wait_for()
    page.wait_for_function("!document.querySelector('#recover-go').disabled")
    text.fill("x" * 20_001)
    go.click()  # after an error as well
    page.locator("#recover-message .refused", has_text="at most 20,000 characters").wait_for()
    page.wait_for_function("!document.querySelector('#recover-go').disabled")
    assert not done.count() and stop.is_disabled()


def test_enter_during_a_run_recovers_what_is_typed_now(app, visit, hold, monkeypatch):
    """Enter during a run was lost in silence: the page went on with the old text, and never came to the new one."""
    page = visit("Recover")
    done, text = page.locator(".recovery[data-done=true]"), page.get_by_label("Sentence")
    done.wait_for()
    page.get_by_label("quick").locator("visible=true").check()
    generate, runs = app.inverter.generate, []

    def held(*arguments, **settings):
        runs.append(1)
        if len(runs) == 1:
            hold.wait(60)
        return generate(*arguments, **settings)

    monkeypatch.setattr(app.inverter, "generate", held)
    text.fill("We meet at noon.")
    text.press("Enter")
    wait_until(page, lambda: runs)  # else the run could be stopped before the model has it
    text.press("Enter")  # the same again is what runs already
    text.fill("The dog slept.")
    text.press("Enter")
    done.locator(".original", has_text="dog").wait_for()
    page.wait_for_function("!document.querySelector('#recover-go').disabled")
    assert len(runs) == 2 and not page.locator(".stopped").count()


@pytest.mark.parametrize("word", ["cancel", "reset"])  # gradio asks for both, one after the other
def test_the_next_run_waits_for_the_servers_word(app, visit, hold, monkeypatch, word):
    """Far from the server, its answers to a Stop ended the run that followed: nothing could stop that one."""
    page = visit("Recover")
    page.locator(".recovery[data-done=true]").wait_for()
    text, stop = page.get_by_label("Sentence"), page.get_by_role("button", name="Stop").locator("visible=true")
    answers, runs = [], []
    page.route(f"**/{word}", lambda answer: answers.append(answer))

    def held(*_, **__):
        runs.append(1)
        hold.wait(60)
        raise EmbInvError("No text.")

    monkeypatch.setattr(app.inverter, "generate", held)
    text.fill("We meet at noon.")
    text.press("Enter")
    wait_until(page, lambda: runs)
    text.fill("The dog slept.")
    text.press("Enter")
    text.press("Enter")  # once more, while it is stopped
    wait_until(page, lambda: answers)
    page.wait_for_timeout(500)
    assert len(runs) == len(answers) == 1
    answers[0].continue_()
    wait_until(page, lambda: len(runs) == 2)
    wait_until(page, lambda: stop.is_enabled() and page.get_by_role("button", name="Recover it").is_disabled())
    page.unroute(f"**/{word}")
    stop.click()
    page.locator("#recover-message", has_text="Stopped.").wait_for()
    assert stop.is_disabled() and len(runs) == 2


@pytest.mark.slow
def test_a_visitor_recovers_stops_and_replays(app, visit, hold, monkeypatch):
    """The whole walk on a phone: a result on arrival, each error, the rounds, Stop, the end and its replay."""
    page = visit("Recover", 390, 844)
    done, message = page.locator(".recovery[data-done=true]"), page.locator("#recover-message .message")
    done.wait_for()  # a result stands there when one arrives
    assert "Content words recovered" in done.inner_text()
    text = page.get_by_label("Sentence")
    go, stop = (page.get_by_role("button", name=name).locator("visible=true") for name in ("Recover it", "Stop"))
    for wrong, line in (("", "Type a sentence first."), ("😀", "knows none of these words")):
        text.fill(wrong)
        go.click()
        page.locator("#recover-message .refused", has_text=line).wait_for()
        assert page.locator(".recovery").count() == 0  # an error takes the old result's place

    put_round = inverter_module._Streamer.put_round

    def held(self, one):
        put_round(self, one)
        if one.number == 1:
            hold.wait(60)

    monkeypatch.setattr(inverter_module._Streamer, "put_round", held)
    text.fill(ENDLESS)
    text.press("Enter")
    first = f"round 1 of {PRESETS['standard'].settings['num_corrections']}"
    page.locator(".counter", has_text=f"{first}, cosine 0.").wait_for()
    assert page.locator("#recover-message .refused").count() == 0 and done.count() == 0
    page.wait_for_function(
        "document.querySelector('.recovery').getBoundingClientRect().top < 400"
    )  # it has gone there
    stop.click()
    page.get_by_text("Stopped.").wait_for()
    hold.set()
    assert all_stopped() and page.locator(".counter", has_text=first).count() == 1
    monkeypatch.undo()

    page.get_by_label("quick").locator("visible=true").check()
    text.fill(f"{SENTENCE} 😀")
    go.click()
    done.wait_for()
    assert "does not know 😀" in message.inner_text() and page.locator(".original mark.leaked").count()
    slider = page.get_by_label("Replay: step")
    slider.focus()
    slider.press("Home")
    page.locator(".frame:not([hidden]) .draft[data-masked='32']").wait_for()
    assert page.locator(".counter output").inner_text() == "draft, nothing written"
    slider.press("End")
    page.locator(".frame:not([hidden]) .draft[data-masked='0']").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
