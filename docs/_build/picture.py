"""Draws the architecture from the imports: python docs/_build/picture.py

Two pictures: the packages, where all shipped files are one room, and the shipped files. A room stands one storey above
the highest room that it imports; a storey of many rooms takes several lines. An arrow points to what is imported; it is
left out where a longer way leads there.
"""

import ast
import html
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "modeling_embinv"
PICTURES = {"packages": ROOT / "docs/assets/packages.svg", "shipped": ROOT / "docs/assets/shipped.svg"}
SHIPPED = "shipped files"
# pixels: a letter, a box, between boxes, between lines of boxes, from storey to storey, around all of it
LETTER, HEIGHT, GAP, LINE, STOREY, MARGIN = 9, 30, 18, 12, 74, 16
# of a picture; a page shows a wider one with letters that nobody can read
NARROWEST, WIDEST = 560, 800

Imports = dict[str, set[str]]


def file_imports() -> Imports:
    """The modules of the package, as dotted names below it, and the modules that each imports from it."""
    paths = [path for path in PACKAGE.rglob("*.py") if path.stem not in ("__init__", "__main__")]
    names = {_name(path): path for path in sorted(paths)}
    return {name: _imported(path) & set(names) for name, path in names.items()}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            parent = path.parents[node.level - 1]
            module = parent.joinpath(*(node.module or "").split("."))
            found |= {_name(module / alias.name) for alias in node.names}
            found |= {_name(module)} if module != PACKAGE else set()
    return found


def merged(imports: Imports, room) -> Imports:
    """The imports between rooms; `room` names that of a module, or is None for modules that are left out."""
    rooms: Imports = {}
    for module, targets in imports.items():
        if (own := room(module)) is not None:
            rooms.setdefault(own, set()).update(other for other in map(room, targets) if other not in (None, own))
    return rooms


def package_of(module: str) -> str:
    """The sub-package of a module, one room for the shipped files, or the file itself."""
    if module.endswith("_embinv"):
        return SHIPPED
    return module.partition(".")[0]


def shipped_of(module: str) -> str | None:
    """The short name of a shipped file."""
    return module.removesuffix("_embinv") if module.endswith("_embinv") else None


def storeys(rooms: Imports) -> dict[str, int]:
    """The storey of each room, 0 at the bottom.

    Raises:
        ValueError: for rooms that import each other in a circle.
    """
    found: dict[str, int] = {}

    def storey(room: str, above: tuple[str, ...] = ()) -> int:
        if room in above:
            raise ValueError(f"a circle of imports: {' -> '.join([*above, room])}")
        if room not in found:
            found[room] = max((storey(other, (*above, room)) + 1 for other in rooms[room]), default=0)
        return found[room]

    for room in rooms:
        storey(room)
    return found


def direct(rooms: Imports) -> Imports:
    """The imports that no longer way of imports replaces."""

    def reached(room: str) -> set[str]:
        return rooms[room].union(*map(reached, rooms[room]))

    return {room: targets - set().union(*map(reached, targets)) for room, targets in rooms.items()}


def draw(rooms: Imports) -> str:
    """The picture as SVG."""
    arrows, boxes, width, height = direct(rooms), *_layout(rooms)
    lines = []
    for room in sorted(arrows):
        x, y, _ = boxes[room]
        for target in sorted(arrows[room]):
            to_x, to_y, _ = boxes[target]
            lines.append(f'<path d="M{x} {y + HEIGHT} L{to_x} {to_y - 4}" class="arrow"/>')
    for room, (x, y, wide) in sorted(boxes.items()):
        lines.append(f'<rect x="{x - wide // 2}" y="{y}" width="{wide}" height="{HEIGHT}" rx="5" class="room"/>')
        lines.append(f'<text x="{x}" y="{y + 20}">{html.escape(room)}</text>')
    return _SVG.format(width=width, height=height, body="\n".join(lines))


def _layout(rooms: Imports) -> tuple[dict[str, tuple[int, int, int]], int, int]:
    """(x of the centre, y of the top, width) of each box; the size of the picture."""
    levels, wide = storeys(rooms), {room: LETTER * len(room) + 16 for room in rooms}
    rows = [sorted(room for room in rooms if levels[room] == level) for level in range(max(levels.values()) + 1)]
    widest = max(sum(wide[room] + GAP for room in row) - GAP for row in rows)
    width = min(max(widest + 2 * MARGIN, NARROWEST), WIDEST)
    boxes: dict[str, tuple[int, int, int]] = {}  # y counts from the ground first
    height = MARGIN
    for row in rows:
        # under the boxes below it that it imports, so that few arrows cross
        row.sort(key=lambda room: _mean([boxes[other][0] for other in rooms[room]], width / 2))
        for line in _lines(row, wide, width - 2 * MARGIN):
            between = (width - 2 * MARGIN - sum(wide[room] for room in line)) // (len(line) + 1)
            left, height = MARGIN + between, height + HEIGHT
            for room in line:
                boxes[room] = left + wide[room] // 2, height, wide[room]
                left += wide[room] + between
            height += LINE
        height += STOREY - HEIGHT - LINE
    height += MARGIN + HEIGHT - STOREY
    return {room: (x, height - y, size) for room, (x, y, size) in boxes.items()}, width, height


def _lines(row: list[str], wide: dict[str, int], room: int) -> list[list[str]]:
    """The boxes of a storey in as few lines as `room` pixels need; neighbours stand in different ones."""
    number = 1
    while number < len(row) and any(sum(wide[box] + GAP for box in row[i::number]) > room for i in range(number)):
        number += 1
    return [row[i::number] for i in range(number)]


def _mean(values: list[int], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0 L8 4 L0 8 z" fill="#64748b"/></marker></defs>
<style>.room {{fill: #e6f4f1; stroke: #0f766e}} .arrow {{stroke: #64748b; marker-end: url(#tip)}} \
text {{font: 14px monospace; text-anchor: middle; fill: #0f172a}}</style>
<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>
{body}
</svg>
"""


def pictures() -> dict[Path, str]:
    """What each picture's file must hold."""
    imports = file_imports()
    rooms = {"packages": merged(imports, package_of), "shipped": merged(imports, shipped_of)}
    return {path: draw(rooms[name]) for name, path in PICTURES.items()}


if __name__ == "__main__":
    for path, picture in pictures().items():
        path.write_text(picture, encoding="utf-8")
