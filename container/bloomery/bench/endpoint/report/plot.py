"""One plot as SVG: lines, bands, steps, bars. Colours are classes: page and picture decide about light and dark.

Hovering over a mark tells its figures by <title>, which every browser shows without a script.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from zlib import crc32

from bloomery.bench.endpoint.report.axes import Scale, written

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 560, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 26, 74, 48
_LEGEND_Y = 50


@dataclass
class Plot:
    """Add marks, then ``svg()``. ``x`` and ``y`` are the axes; their names stand at their ends."""

    title: str
    x: Scale
    y: Scale
    x_name: str
    y_name: str
    x_written: Callable[[float], str] = written
    y_written: Callable[[float], str] = written
    width: int = WIDTH
    height: int = HEIGHT
    _marks: list[str] = field(default_factory=list)
    _legend: list[tuple[str, str, str]] = field(default_factory=list)

    def line(self, points: Points, colour: str, *, name: str = "", style: str = "line", dots: bool = True) -> None:
        """``style``: the class of the line, such as "line dashed"."""
        self._marks.append(f'<polyline class="{style} {colour}" points="{self._joined(points)}"/>')
        if dots:
            for x, y in points:
                said = f"{name}: {self.x_written(x)} → {self.y_written(y)}"
                self._marks.append(
                    f'<circle class="dot {colour}" cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="4">'
                    f"<title>{escape(said)}</title></circle>"
                )
        if name:
            self._legend.append((name, style, colour))

    def band(self, upper: Points, lower: Points, colour: str, *, name: str = "") -> None:
        """The area between two lines."""
        outline = [*upper, *reversed(lower)]
        self._marks.insert(0, f'<polygon class="band {colour}" points="{self._joined(outline)}"/>')
        if name:
            self._legend.append((name, "band", colour))

    def distribution(self, values: Sequence[float], colour: str, *, name: str) -> None:
        """Which share of the values is at most so large: ``values`` at equal steps of probability, in order."""
        number = len(values)
        points = [(value, (index + 1) / number) for index, value in enumerate(values)]
        corners = [(values[0], 0.0)]
        for (value, share), (_, before) in zip(points, [(0.0, 0.0), *points], strict=False):
            corners += [(value, before), (value, share)]
        self._marks.append(
            f'<polyline class="line {colour}" points="{self._joined(corners)}"><title>{escape(name)}</title></polyline>'
        )
        self._legend.append((name, "line", colour))

    def bar(self, begin: float, end: float, y: float, colour: str, said: str, thickness: float = 5) -> None:
        """A horizontal one from x to x."""
        left, right = self._x(begin), self._x(end)
        self._marks.append(
            f'<rect class="bar {colour}" x="{left:.1f}" y="{self._y(y) - thickness / 2:.1f}" '
            f'width="{max(right - left, 0.8):.1f}" height="{thickness:.1f}" rx="{min(2.0, thickness / 2):.1f}">'
            f"<title>{escape(said)}</title></rect>"
        )

    def explain(self, name: str, style: str, colour: str) -> None:
        """An entry of the legend for marks that are many."""
        self._legend.append((name, style, colour))

    def note(self, x: float, y: float, text: str) -> None:
        """A word beside a point."""
        self._marks.append(f'<text class="note" x="{self._x(x):.1f}" y="{self._y(y):.1f}">{escape(text)}</text>')

    def svg(self, x: float = 0, y: float = 0) -> str:
        """An <svg> element of its own, or placed inside another one."""
        clip = f"c{crc32(f'{self.title} {x} {y}'.encode())}"
        return (
            f'<svg class="plot" x="{x:g}" y="{y:g}" width="{self.width}" height="{self.height}" '
            f'viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.title, quote=True)}">'
            f'<text class="title" x="4" y="20">{escape(self.title)}</text>'
            f"{self._key()}{self._grid()}"
            f'<clipPath id="{clip}"><rect x="{_LEFT - 5}" y="{_TOP - 6}" width="{self.width - _LEFT - _RIGHT + 10}" '
            f'height="{self.height - _TOP - _BOTTOM + 12}"/></clipPath>'
            f'<g clip-path="url(#{clip})">{"".join(self._marks)}</g></svg>'
        )

    def _x(self, value: float) -> float:
        return _LEFT + self.x.place(value) * (self.width - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        return self.height - _BOTTOM - self.y.place(value) * (self.height - _TOP - _BOTTOM)

    def _joined(self, points: Points) -> str:
        return " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)

    def _grid(self) -> str:
        right, floor = self.width - _RIGHT, self.height - _BOTTOM
        parts = []
        for tick in self.y.ticks:
            y = self._y(tick)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(
                f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{self.y_written(tick)}</text>'
            )
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>')
        last = float("-inf")
        for tick in self.x.ticks:
            x = self._x(tick)
            if x - last < 38:  # ticks that would touch
                continue
            last = x
            parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}"/>')
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{self.x_written(tick)}</text>'
            )
        parts.append(
            f'<text class="name" x="{right}" y="{self.height - 8}" text-anchor="end">{escape(self.x_name)}</text>'
        )
        parts.append(f'<text class="name" x="4" y="{_TOP - 14}">{escape(self.y_name)}</text>' if self.y_name else "")
        return "".join(parts)

    def _key(self) -> str:
        """The legend, in one row below the title, from the right; of many entries the middle ones are left out."""
        entries = self._legend if len(self._legend) <= 6 else [*self._legend[:3], *self._legend[-2:]]
        parts, x = [], float(self.width - _RIGHT)
        for name, style, colour in reversed(entries):
            x -= 6.3 * len(name)
            parts.append(f'<text class="key" x="{x:.1f}" y="{_LEGEND_Y - 6}">{escape(name)}</text>')
            x -= 22
            if style.startswith("line"):
                parts.append(
                    f'<line class="{style} {colour}" x1="{x:.1f}" x2="{x + 16:.1f}" '
                    f'y1="{_LEGEND_Y - 10}" y2="{_LEGEND_Y - 10}"/>'
                )
            else:
                parts.append(
                    f'<rect class="{style} {colour}" x="{x:.1f}" y="{_LEGEND_Y - 15}" width="16" height="10" rx="2"/>'
                )
            x -= 12
        return "".join(parts)
