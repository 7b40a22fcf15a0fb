"""The plots as one SVG file, for a README. It has its colours with it and follows the reader's light or dark."""

from __future__ import annotations

from collections.abc import Sequence

from bloomery.bench.endpoint.report import charts, style
from bloomery.bench.endpoint.report.charts import Report
from bloomery.bench.endpoint.report.plot import HEIGHT, WIDTH

_MARGIN, _GAP, _FOOT = 20, 24, 34
_PLOTS = 4


def render(reports: Sequence[Report]) -> str:
    """Up to four plots, two beside each other, and a line that says what was measured."""
    found = charts.every(reports)
    # The requests one by one tell more at a glance than a fourth distribution.
    plots = found if len(found) <= _PLOTS else [*found[: _PLOTS - 1], found[-1]]
    columns = min(2, max(1, len(plots)))
    rows = -(-len(plots) // columns)
    width = 2 * _MARGIN + columns * WIDTH + (columns - 1) * _GAP
    height = 2 * _MARGIN + rows * HEIGHT + (rows - 1) * _GAP + _FOOT
    placed = [
        plot.svg(
            _MARGIN + (index % columns) * (WIDTH + _GAP),
            _MARGIN + (index // columns) * (HEIGHT + _GAP),
        )
        for index, plot in enumerate(plots)
    ]
    card = f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="12" class="card"/>'
    foot = f'<text class="foot" x="{_MARGIN + 4}" y="{height - 20}">{charts.described(reports)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"<style>{style.variables()}{style.plots()}.card{{fill:var(--card);stroke:var(--edge)}}"
        f".foot{{font:12px {style.FONT};fill:var(--soft)}}</style>{card}{''.join(placed)}{foot}</svg>\n"
    )
