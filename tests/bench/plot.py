"""The plot: bars for each case, as an SVG that needs nothing to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from tests.bench.cases.sizes import OURS
from tests.bench.measure import Row, Table, Unit

#: Widths of the names, of the longest bar, and of all; heights of a bar, and of a title.
_NAMES, _BARS, _WIDTH = 250, 380, 760
_LINE, _TITLE = 19, 40
_OURS, _LIMIT, _PEER = "#c2410c", "#64748b", "#94a3b8"


def svg(tables: Sequence[Table]) -> str:
    """Return the pictured cases: a bar is the median, the line across it the least and the most."""
    parts, y = [], 0
    for table in tables:
        if table.case.pictured and table.rows:
            parts += _panel(table, y)
            y += _TITLE + _LINE * len(table.rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 10}" '
        f'width="{_WIDTH}" height="{y + 10}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{"".join(parts)}</svg>\n'
    )


def _panel(table: Table, y: int) -> list[str]:
    unit = table.case.unit
    word = "per second, more is better" if unit == "/s" else f"{unit}, less is better"
    title = escape(f"{table.case.title} ({word})".replace("`", ""))
    parts = [f'<text x="8" y="{y + 26}" font-weight="bold">{title}</text>\n']
    most = max(row.value.most for row in table.rows)
    for number, row in enumerate(table.rows):
        parts.append(_bar(row, y + _TITLE + _LINE * number, _BARS / most, unit))
    return parts


def _bar(row: Row, y: int, scale: float, unit: Unit) -> str:
    value, middle = row.value, y + 7
    x = _NAMES + 8
    least, most = x + value.least * scale, x + value.most * scale
    colour = _OURS if row.name.startswith(OURS) else _PEER if "," in row.name else _LIMIT
    figure = f"{value.middle:,.0f}" if unit == "/s" else f"{value.middle:,.1f}"
    return (
        f'<text x="{_NAMES}" y="{y + 11}" text-anchor="end">{escape(row.name)}</text>\n'
        f'<rect x="{x}" y="{y}" width="{value.middle * scale:.1f}" height="14" fill="{colour}"/>\n'
        f'<path d="M{least:.1f} {middle}H{most:.1f}" stroke="#111" fill="none"/>\n'
        f'<text x="{most + 6:.1f}" y="{y + 11}">{figure}</text>\n'
    )
