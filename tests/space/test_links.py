"""Links to a result: what was typed comes back from the address, in its tab, and the attack goes on by itself."""

import json
import re
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from links import COPIED

from tests.space.conftest import go_to

SENTENCE = 'Anna & Li met "here" at 5 % off, didn\'t they?'


def test_a_link_brings_back_what_was_typed(visit):
    """Quotes, & and % that end the link early; another tab; words to hide that the new sentence's list drops."""
    page = visit("Redacted")
    page.get_by_label("Text to redact").locator("visible=true").fill(SENTENCE)
    page.get_by_label("Anna", exact=True).check()
    page.get_by_role("button", name="Copy link").locator("visible=true").click()
    link = page.locator("#redacted-message a")
    link.wait_for()
    assert COPIED in page.locator("#redacted-message").inner_text()
    address = link.get_attribute("href")
    assert urlsplit(page.url).fragment == urlsplit(address).fragment
    told = parse_qs(urlsplit(address).fragment)
    assert told["tab"] == ["Redacted"] and SENTENCE in told["text"][0].replace("\\", "")
    again = visit(None, fragment=urlsplit(address).fragment)
    again.locator("#redacted-result", has_text="Li met").wait_for()
    assert again.get_by_label("Text to redact").locator("visible=true").input_value() == SENTENCE
    assert again.get_by_label("Anna", exact=True).is_checked()


def test_a_link_opens_its_tab_and_takes_nothing_of_another_kind(visit):
    """A link that somebody changed must leave the controls usable; markup in it must stay text."""
    text = '"<img src=x onerror=document.title=1> a red kite"'
    page = visit(None, fragment=urlencode({"tab": "Recover", "text": text, "preset": "[1]", "judge": "{"}))
    page.locator("#recover-result", has_text=re.compile(r"a red\b.*\bkite", re.S)).wait_for()
    assert page.get_by_role("tab", name="Recover", exact=True).get_attribute("aria-selected") == "true"
    assert page.get_by_label("standard", exact=True).locator("visible=true").is_checked()
    assert page.title() != "1" and not page.locator("#recover-result img").count()


def test_a_link_opens_in_a_tab_that_has_the_page(visit, url):
    """A browser loads nothing anew where the part behind the # alone differs, so that the link did nothing."""
    page = visit("Redacted")
    told = {"tab": "Recover", "text": json.dumps("A red kite."), "preset": json.dumps("quick")}
    page.goto(f"{page.url.partition('#')[0]}#{urlencode(told)}")
    page.locator("#recover-result .original", has_text="kite").wait_for()


def test_a_link_is_made_without_a_clipboard(visit):
    """Over plain HTTP a browser has no clipboard: the button did nothing."""
    page = visit("Recover")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.get_by_role("button", name="Copy link").locator("visible=true").click()
    page.locator("#recover-message a").wait_for()
    told = page.locator("#recover-message .note").inner_text()
    assert "The address bar holds" in told and "Copied" not in told and COPIED in told
    assert page.locator("#recover-message a").get_attribute("href") == page.url.replace('"', "%22")


@pytest.mark.parametrize("width", [320, 390, 1366])
def test_the_link_button_stands_in_one_line(visit, width):
    """Its two words broke at every width, and on a narrow phone it had a row to itself."""
    page = visit("Recover", width, 844)
    for tab in ("Recover", "Redacted"):
        go_to(page, tab)
        link, stop = (page.get_by_role("button", name=name).locator("visible=true") for name in ("Copy link", "Stop"))
        link.wait_for()
        ours, other = link.bounding_box(), stop.bounding_box()
        assert (ours["y"], ours["height"]) == (other["y"], other["height"])
        assert ours["height"] < 60 and ours["x"] + ours["width"] <= width - 15
