"""The picture that a shared link to the Space shows: a redacted sentence, and how its vector fills it.

    python experiments/social_preview.py        # from results/gap_picture.json; needs Chromium and playwright

Writes `space/preview.png`, 1200 × 630.
"""

import json
import sys
from html import escape
from pathlib import Path

from gap_picture import BARS, RESULTS

FOLDER = Path(__file__).resolve().parent
PREVIEW = FOLDER.parent / "space" / "preview.png"
CHROMIUM = "/usr/bin/chromium"
STYLE = """
body { margin: 0; width: 1200px; height: 630px; box-sizing: border-box; padding: 104px 72px; background: #f9fafb;
  color: #1f2937; font: 40px/1.45 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 64px; margin: 0 0 8px; color: #0f766e; }
p { margin: 22px 0; } small { display: block; font-size: 26px; color: #4b5563; }
.bar { color: #111; letter-spacing: -.05em; }
mark { background: rgba(45, 110, 220, .30); color: inherit; border-radius: .2em; padding: 0 .15em;
  text-decoration: underline 3px; text-underline-offset: .2em; }
"""


def main() -> int:
    from playwright.sync_api import sync_playwright

    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 630})
        page.set_content(card(found))
        page.screenshot(path=PREVIEW)
        browser.close()
    return 0


def card(found: dict) -> str:
    """HTML of the picture."""
    redacted = escape(found["redacted"]).replace(BARS, f'<span class="bar">{BARS}</span>')
    return (
        f"<html><head><style>{STYLE}</style></head><body><h1>What an embedding says</h1>"
        f"<p><small>The text that leaked</small>{redacted}</p>"
        f"<p><small>With its embedding, and no encoder</small>{filled(found)}</p>"
        "<p><small>EmbInv: masked diffusion reads text back out of sentence embeddings.</small></p></body></html>"
    )


def filled(found: dict) -> str:
    """The first rung's text, its filled words marked."""
    row = found["rungs"][0]
    parts, position = [], 0
    for gap in row["gaps"]:
        parts += [escape(row["text"][position : gap["start"]]), f"<mark>{escape(gap['text'])}</mark>"]
        position = gap["end"]
    return "".join([*parts, escape(row["text"][position:])])


if __name__ == "__main__":
    sys.exit(main())
