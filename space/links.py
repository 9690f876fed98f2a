"""Links that hold what a visitor typed: behind the #, which a browser sends to no server."""

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.context import Context
from parts import INSTANT

COPIED = "The sentence is part of the link: whoever has it sees it."
# (values of the controls) → a note below them; the address bar gets the link, too, where the page has one
_COPY = """async (...values) => {{
  const link = new URL(window.location.href), names = {names};
  const parts = names.map((name, place) => [name, JSON.stringify(values[place])]);
  link.hash = new URLSearchParams([["tab", {tab}], ...parts]).toString();
  window.history.replaceState(null, "", link);
  const copying = navigator.clipboard?.writeText(link.href) ?? Promise.reject();  // over plain HTTP there is none
  const copied = await copying.then(() => "Copied: ", () => "The address bar holds ");
  const address = link.href.replaceAll("&", "&amp;").replaceAll('"', "%22");
  return `<p class="note">${{copied}}<a href="${{address}}">a link to this</a>. {note}</p>`;
}}"""
# (values of the controls) → those of the link; what is of another kind is left as it is
_ARRIVE = """(...values) => {{
  const given = new URLSearchParams(window.location.hash.slice(1)), names = {names};
  if (given.get("tab") !== {tab}) return values;
  const tabs = [...document.querySelectorAll("button[role=tab]")];
  tabs.find(button => button.textContent.trim() === {tab})?.click();
  setTimeout(() => document.querySelector("#{go}").click(), {wait});
  return names.map((name, place) => {{
    try {{
      const value = JSON.parse(given.get(name)), old = values[place];
      const isAlike = Array.isArray(old)
        ? Array.isArray(value) && value.every(one => typeof one === "string")
        : typeof value === typeof old;
      return isAlike ? value : old;
    }} catch {{ return values[place]; }}
  }});
}}"""
WAIT = 800  # milliseconds in which the controls take the values of a link, before it is gone on with


def link_button() -> gr.Button:
    """A button for `offer_link`, to be placed in a row of the tab."""
    return gr.Button("Copy link", min_width=70, scale=0)


def offer_link(button: gr.Button, tab: str, controls: dict[str, Any], message: gr.HTML, go: str) -> None:
    """Let a button make a link to the tab with the values of its controls, and let such a link fill them and go on.

    Args:
        tab: its name on the page.
        controls: by the names that they have in the link.
        message: where the link stands.
        go: the id of the button that starts the attack.
    """
    named = dict(names=json.dumps(list(controls)), tab=json.dumps(tab))
    parts: Sequence[Any] = list(controls.values())
    button.click(None, parts, message, js=_COPY.format(note=COPIED, **named), **INSTANT)
    page = Context.root_block
    assert page is not None  # a tab is made inside the page
    page.load(None, parts, parts, js=_ARRIVE.format(go=go, wait=WAIT, **named))
