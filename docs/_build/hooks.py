"""What mkdocs does besides: formulas become MathML, and a star in the navigation the pages that match."""

import html
import re
from pathlib import Path

from latex2mathml.converter import convert

# what pymdownx.arithmatex makes of $…$ and $$…$$
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_config(config):
    """Called by mkdocs before it builds."""
    entries = [_expanded(entry, Path(config.docs_dir)) for entry in config.nav]
    config.nav = [entry for entry in entries if all(entry.values())]
    return config


def on_page_content(content: str, **_) -> str:
    """Called by mkdocs with the HTML of each page: browsers draw MathML without a script."""
    return _FORMULA.sub(lambda found: _mathml(found[2], found[1] == "div"), content)


def _expanded(entry, folder: Path):
    """A navigation entry with the pages of `folder` in place of a pattern, an index first."""
    (title, target), = entry.items()
    if not isinstance(target, str) or "*" not in target:
        return entry
    pages = sorted(folder.glob(target), key=lambda path: (path.stem != "index", path.name))
    return {title: [page.relative_to(folder).as_posix() for page in pages]}


def _mathml(formula: str, is_block: bool) -> str:
    drawn = convert(html.unescape(formula).strip(), display="block" if is_block else "inline")
    return f'<div class="formula">{drawn}</div>' if is_block else drawn
