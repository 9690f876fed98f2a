"""The tab "For researchers": all settings, strategies side by side, and mixed vectors."""

import pytest
from comparing import compare, mix
from researchers_html import comparison_html, mixed_html
from researchers_tab import CONTROLS, TEMPERATURES, bounds_of

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.settings_embinv import FEEDBACK, SETTINGS

gradio_client = pytest.importorskip("gradio_client", reason="the Space needs gradio: pip install 'embinv[space]'")
SENTENCE = "We will meet at the station on Friday evening."


def test_controls_are_made_from_the_table_of_settings(app):
    """A page whose sliders start elsewhere than `generate`, reach what it refuses, or call it by other words."""
    for name, bound in bounds_of(app.inverter).items():
        setting = {**SETTINGS, "feedback": FEEDBACK}[name]
        control = bound.control()
        assert bound.info == control.info == setting.help
        if name == "temperature":
            assert all(setting.check(float(word)) is not None for word in bound.choices[1:])
        elif hasattr(bound, "choices"):
            assert len(bound.choices) > 1 and set(bound.choices) <= set(setting.choices)
        else:
            assert control.value == bound.check(None) == setting.default
            assert isinstance(control.step, int) == (setting.kind is int)
            assert (control.minimum, control.maximum) == (bound.low, bound.high)
            assert bound.high < setting.high and bound.low == max(setting.low, 0)  # the page allows less of each
            assert all(setting.check(value) == value for value in (bound.low, bound.high))
    assert tuple(bounds_of(app.inverter)) == CONTROLS
    assert bounds_of(app.inverter)["strategy"].default == SETTINGS["strategy"].default


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


def test_settings_reach_the_model(url):
    """An empty number box showed and sent 0, so that visitors never saw the euler strategies sample."""
    client = gradio_client.Client(url, verbose=False)
    own, greedy = (
        client.predict(SENTENCE, 1, "euler", 8, 1, temperature, api_name="/invert")
        for temperature in (TEMPERATURES[0], "0")
    )
    assert own["text"] != greedy["text"]
    assert client.predict(SENTENCE, 0, "confidence", 3, api_name="/invert")["num_forward_passes"] == 3


@pytest.mark.slow
def test_corrections_bring_the_text_nearer(url):
    """A control that is wired to nothing, or a loop that returns its first text."""
    client = gradio_client.Client(url, verbose=False)
    text = "Hrolf Kraki owes Ottar 37 elks."  # too odd to be recovered whole, and short
    settings = (0, "confidence", 8, 1, "0", 0.05)
    first = client.predict(text, *settings, 1, 0, "encoder", api_name="/invert")
    loop = client.predict(text, *settings, 2, 1, "encoder", api_name="/invert")
    again = client.predict(text, *settings, 2, 1, "encoder", 2, api_name="/invert")
    assert first["cosine"] < loop["cosine"] <= again["cosine"]
    assert first["encoder_calls"] == 0 < loop["encoder_calls"]
    assert loop["cosine"] < 1 and loop["encoder_calls"] < again["encoder_calls"]  # what no text reached goes on
    assert len(first["steps"]) < len(loop["steps"])


@pytest.mark.slow
def test_a_visitor_runs_compares_and_mixes(visit):
    """Tabs that are only drawn when they are opened break unseen; an error must not leave the old result."""
    page = visit("For researchers")
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
