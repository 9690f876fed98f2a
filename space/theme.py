"""Colours and shapes of the page: contrasts of 4.5 and more in light and dark. `style.css` has our own parts."""

from pathlib import Path

import gradio as gr

_DEEP = ("button_primary_background_fill", "checkbox_label_background_fill_selected")
# the theme's own colours have a contrast of 1.9 to 3.7; these have 4.5 at least
_READABLE = {f"{name}{mode}": "*primary_700" for name in _DEEP for mode in ("", "_dark")} | {
    "button_primary_background_fill_hover": "*primary_800",
    "button_primary_background_fill_hover_dark": "*primary_800",
    "block_label_background_fill_dark": "*primary_800",
    "block_label_text_color": "*primary_800",
    "block_title_text_color": "*primary_800",
    "body_text_color_subdued": "*neutral_600",
    "link_text_color_dark": "*secondary_300",
    "link_text_color_hover_dark": "*secondary_200",
    "link_text_color_visited_dark": "*secondary_300",
    "background_fill_primary": "*neutral_50",  # the theme's own, which `set` forgets
}

# gradio measures which tabs have room before it adds the page's own CSS, so that this stands in the page's head
EARLY_CSS = """@media (max-width: 700px) {
  .main.fillable { padding-inline: 1rem !important; }
  .tab-container button { padding: 0 .25rem !important; font-size: .75rem !important; }
}"""
CSS = Path(__file__).with_name("style.css").read_text(encoding="utf-8")


def theme() -> gr.themes.Base:
    """The page's theme; its fonts are the reader's own."""
    soft = gr.themes.Soft(
        primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return soft.set(**_READABLE)
