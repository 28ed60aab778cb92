"""Draw ``docs/rooms.svg``, the rooms of the code on their floors: ``python docs/draw_rooms.py``.

Floors come from the import contract in ``pyproject.toml``, texts from the packages' docstrings.
"""

import ast
import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
_WIDTH, _HEIGHT, _GAP, _LEFT = 960, 64, 10, 34
_INK, _MUTED, _LINE, _ROOM = "#1f2328", "#59636e", "#0072b2", "#eef5fa"


def floors() -> list[list[str]]:
    """Rooms of each floor, from the top down."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    rows = [[room.strip(" ()") for room in floor.split("|")] for floor in layers]
    return [row for row in rows if row != ["__main__"]]


def purpose(room: str) -> str:
    """First sentence of a package's docstring."""
    source = (ROOT / "src" / "linprobe" / room / "__init__.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return docstring.split("\n\n")[0].replace("\n", " ").replace("`", "")


def draw() -> str:
    """The picture as SVG."""
    rows = floors()
    height = len(rows) * (_HEIGHT + _GAP) + _GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="system-ui, sans-serif" role="img">',
        "<title>Rooms of linprobe on their floors; imports point downwards only</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for place, row in enumerate(rows):
        top = _GAP + place * (_HEIGHT + _GAP)
        parts.append(_text(12, top + _HEIGHT / 2 + 5, str(len(rows) - place), _MUTED, 14))
        width = (_WIDTH - _LEFT - _GAP * len(row)) / len(row)
        for column, room in enumerate(row):
            parts += _box(room, _LEFT + column * (width + _GAP), top, width)
    return "\n".join([*parts, "</svg>", ""])


def _box(room: str, left: float, top: float, width: float) -> list[str]:
    lines = textwrap.wrap(purpose(room), int(width / 6.7))[:2]
    return [
        f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{_HEIGHT}" rx="6" '
        f'fill="{_ROOM}" stroke="{_LINE}"/>',
        _text(left + 10, top + 20, f"{room}/", _INK, 15, "600"),
        *(_text(left + 10, top + 37 + 15 * i, line, _INK, 12) for i, line in enumerate(lines)),
    ]


def _text(x: float, y: float, text: str, colour: str, size: int, weight: str = "400") -> str:
    look = f'fill="{colour}" font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x:.0f}" y="{y:.0f}" {look}>{escape(text)}</text>'


if __name__ == "__main__":
    (ROOT / "docs" / "rooms.svg").write_text(draw(), encoding="utf-8")
