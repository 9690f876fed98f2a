"""The tab "For researchers": all settings, strategies side by side, and mixed vectors."""

import pytest
from bounds import shown
from comparing import compare, mix
from controls import CONTROLS, bounds_of
from researchers_html import comparison_html, mixed_html

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.settings_embinv import FEEDBACK, SETTINGS

gradio_client = pytest.importorskip("gradio_client", reason="the Space needs gradio: pip install 'embinv[space]'")
SENTENCE = "We will meet at the station on Friday evening."
ODD = "Hrolf Kraki owes Ottar 37 elks."  # too odd to be recovered whole, and short


def test_controls_are_made_from_the_table_of_settings(app):
    """A page whose sliders start elsewhere than `generate`, reach what it refuses, or call it by other words."""
    for name, bound in bounds_of(app.inverter).items():
        setting = {**SETTINGS, "feedback": FEEDBACK}[name]
        control = bound.control()
        if setting.optional:
            assert control.info == shown(f"{setting.help}; default: {setting.none}")
            assert control.value == bound.default == bound.check(None) and bound.number_of(control.value) is None
            values = [bound.number_of(word) for word in (*bound.words, str(bound.number.low), bound.number.high)]
            assert [setting.check(value) for value in values] == values
            assert all(isinstance(value, setting.kind) for value in values) and bound.number.high <= setting.high
            continue
        assert bound.info == control.info == shown(setting.help)
        if hasattr(bound, "choices"):
            assert len(bound.choices) > 1 and set(bound.choices) <= set(setting.choices)
        else:
            assert control.value == bound.check(None) == setting.default
            assert isinstance(control.step, int) == (setting.kind is int)
            assert (control.minimum, control.maximum) == (bound.low, bound.high)
            assert bound.high < setting.high and bound.low >= max(setting.low, 0)  # the page allows less of each
            assert all(setting.check(value) == value for value in (bound.low, bound.high))
    assert bounds_of(app.inverter)["strategy"].default == SETTINGS["strategy"].default


def test_help_speaks_of_labels():
    """The page named what no visitor can see: "of num_proposals" beside a control that is called Proposals."""
    assert (
        shown("half of num_proposals, as draft and word_bonus say") == "half of Proposals, as draft and Word bonus say"
    )
    assert shown("edits, each checked by feedback") == "edits, each checked by the judge"


def test_no_setting_of_generate_is_missing(app):
    """The page said "all settings" and had nine of them; lists, and what a visitor cannot see, need no control."""
    hidden = {"suppress_tokens", "return_history", "calibration"}
    assert sorted(CONTROLS) == sorted({*SETTINGS, "feedback"} - hidden) and tuple(bounds_of(app.inverter)) == CONTROLS


@pytest.mark.parametrize("value", ["warm", "nan", "inf", -1, 1e9, True, [0.5], pytest.param(10**400, id="huge")])
def test_a_typed_number_is_checked(app, value):
    """A place to type takes anything, and the settings of `generate` allow more than a public page should."""
    with pytest.raises(ValueError, match=r"^Temperature: give a number from 0 to 10, or default\.$"):
        bound = bounds_of(app.inverter)["temperature"]
        bound.number_of(bound.check(value))


def test_each_strategy_has_its_row(app):
    """Catches columns that were swapped, texts of another row, and lines that only a colour told apart."""
    strategies = bounds_of(app.inverter)["strategy"].choices
    *_, found = filter(None, compare(app.inverter, SENTENCE, 4, 0, strategies))
    assert [row.strategy for row in found.rows] == list(strategies)
    for row in found.rows:
        vectors = app.inverter.embed([row.text, SENTENCE])
        assert abs(float(vectors[0] @ vectors[1]) - row.cosines[-1]) < 2e-3
        assert len(row.accuracies) == row.passes > 1 and row.seconds > 0
    html = comparison_html(found)
    assert html.count("<svg") == len(strategies) and 'data-done="true"' in html


def test_mixing_goes_from_one_to_the_other(app):
    """Columns that were swapped; two sentences of one vector have no way between them."""
    *_, rows = mix(app.inverter, "The dog sleeps.", "We leave by train at noon.", 5)
    assert [row.share for row in rows] == [0, 0.25, 0.5, 0.75, 1] and mixed_html(rows).count("<tr>") == 6
    assert rows[0].cosine_with_first > rows[-1].cosine_with_first
    assert rows[0].cosine_with_second < rows[-1].cosine_with_second
    with pytest.raises(EmbInvError, match="same vector"):
        list(mix(app.inverter, SENTENCE, SENTENCE, 5))


def handler(app, name):
    """What the page runs for the tab whose message has this name."""
    outputs = ((event.fn, [one.elem_id for one in event.outputs]) for event in app.build().fns.values())
    return next(fn for fn, names in outputs if names == [f"{name}-message", f"{name}-result"])


def test_errors_speak_of_labels(app):
    """An error named num_draft_beams, which the page calls Draft beams."""
    values = {name: bound.check(None) for name, bound in bounds_of(app.inverter).items()}
    values |= {"strategy": "autoregressive", "temperature": "1", "num_draft_beams": 4}
    *_, (message, result) = handler(app, "settings")(SENTENCE, 0, *values.values())
    assert "Draft beams" in message and "_" not in message and not result


def test_mixing_says_what_it_does_not_read(app):
    """A long text was cut and a foreign one mixed without a word."""
    *_, (message, _) = handler(app, "mix")("The Dog sleeps. " * 20, "Mein Passwort ist unter der Tastatur.", 3)
    assert "Only the first 31 tokens are read" in message and "does not look like English" in message


def test_settings_reach_the_model(url):
    """An empty number box showed and sent 0, so that visitors never saw the euler strategies sample."""
    client = gradio_client.Client(url, verbose=False)
    own, greedy = (
        client.predict(SENTENCE, 1, "euler", 8, 1, temperature, api_name="/invert") for temperature in ("default", "0")
    )
    assert own["text"] != greedy["text"]
    assert client.predict(SENTENCE, 0, "confidence", 3, api_name="/invert")["num_forward_passes"] == 3
    search = dict(num_candidates=2, num_corrections=1, num_beams=1, feedback="surrogate", api_name="/invert")
    few, more = (client.predict(ODD, num_proposals=count, **search) for count in (4, 16))
    assert few["surrogate_calls"] < more["surrogate_calls"]


@pytest.mark.slow
def test_corrections_bring_the_text_nearer(url):
    """A control that is wired to nothing, or a loop that returns its first text."""
    client = gradio_client.Client(url, verbose=False)
    settings = (0, "confidence", 8, 1, "0", 0.05)
    # a narrow search takes a sixth of the usual one's time
    narrow = dict(num_beams=1, num_proposals=8, num_checked=4, num_hops=1, api_name="/invert")
    first = client.predict(ODD, *settings, 1, 0, "encoder", **narrow)
    loop = client.predict(ODD, *settings, 2, 1, "encoder", **narrow)
    again = client.predict(ODD, *settings, 2, 1, "encoder", 2, **narrow)
    assert first["cosine"] < loop["cosine"] <= again["cosine"]
    assert first["encoder_calls"] == 0 < loop["encoder_calls"]
    assert loop["cosine"] < 1 and loop["encoder_calls"] < again["encoder_calls"]  # what no text reached goes on
    assert len(first["steps"]) < len(loop["steps"])


@pytest.mark.slow
def test_a_visitor_runs_compares_and_mixes(visit):
    """Tabs that are only drawn when they are opened break unseen; an error must not leave the old result."""
    page = visit("For researchers")
    page.get_by_role("button", name="More settings: how a search goes").click()
    page.get_by_label("Moves", exact=True).fill("many")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator("#settings-message .refused", has_text="Moves: give a whole number from 0 to 128").wait_for()
    page.get_by_label("Moves", exact=True).fill("default")
    page.keyboard.press("Enter")
    for tab, button, result in (
        ("All settings", "Run", ".recovery[data-done=true]"),
        ("Compare strategies", "Compare", ".compared[data-done=true] tbody tr:nth-child(5)"),
        ("Mix two vectors", "Mix", ".mixed[data-done=true] tbody tr:nth-child(7)"),
    ):
        page.get_by_role("tab", name=tab).locator("visible=true").click()
        go = page.get_by_role("button", name=button, exact=True).locator("visible=true")
        go.click()
        page.locator(result).locator("visible=true").wait_for()
        page.get_by_label("From" if button == "Mix" else "Text", exact=True).locator("visible=true").fill("")
        go.click()
        page.locator(".refused", has_text="Type a sentence first.").locator("visible=true").wait_for()
        assert page.locator(result).locator("visible=true").count() == 0
