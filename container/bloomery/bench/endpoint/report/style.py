"""Colours and type of the plots, in light and in dark; the same for page and picture."""

from __future__ import annotations

# run0…: kinds of things, told apart also by people who see fewer colours. shade0…: more and more of one thing.
_LIGHT = {
    "surface": "#fcfcfb", "card": "#ffffff", "edge": "#e4e3df", "ink": "#16150f", "soft": "#5d5b54", "grid": "#ecebe7",
    "axis": "#b9b7b0", "run0": "#2a78d6", "run1": "#eb6834", "run2": "#149a76", "run3": "#7a5cd0", "run4": "#c2458b",
    "run5": "#8a7a1f", "shade0": "#a9ccf3", "shade1": "#74aae8", "shade2": "#418bdc", "shade3": "#1f66b8",
    "shade4": "#0f4078", "wait": "#cfd9e6", "bad": "#d23f3f", "warn": "#fdf3dc", "warnink": "#6b4c00",
}  # fmt: skip
_DARK = {
    "surface": "#141413", "card": "#1c1c1a", "edge": "#33322f", "ink": "#f2f1ec", "soft": "#a9a79f", "grid": "#2a2926",
    "axis": "#56544e", "run0": "#5a9fee", "run1": "#f08a5d", "run2": "#35b894", "run3": "#a08be8", "run4": "#e07ab2",
    "run5": "#c3b24a", "shade0": "#294a70", "shade1": "#3a6da6", "shade2": "#5a9fee", "shade3": "#8dbdf4",
    "shade4": "#c8e0fb", "wait": "#3a434e", "bad": "#f06a6a", "warn": "#38301b", "warnink": "#f0d999",
}  # fmt: skip
FONT = 'system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif'


def variables() -> str:
    """The colours as CSS variables, by what the reader prefers."""
    return f":root{{{_declared(_LIGHT)}}}@media (prefers-color-scheme:dark){{:root{{{_declared(_DARK)}}}}}"


def plots() -> str:
    """What the classes of a plot look like."""
    return (
        f".plot text{{font-family:{FONT};fill:var(--soft);font-size:12px;font-variant-numeric:tabular-nums}}"
        ".plot .title{font-size:15px;font-weight:600;fill:var(--ink)}"
        ".plot .note{fill:var(--ink);dominant-baseline:central}"
        ".plot .key{font-size:11.5px}"
        ".plot .grid{stroke:var(--grid);stroke-width:1}.plot .axis{stroke:var(--axis);stroke-width:1}"
        ".plot .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
        ".plot .dashed{stroke-dasharray:6 5;stroke-width:1.6}.plot .dotted{stroke-dasharray:1 5;stroke-width:2}"
        ".plot .dot{stroke:var(--card);stroke-width:1.5}.plot .band{stroke:none;fill-opacity:.16}"
        + "".join(_colour(name) for name in _LIGHT if name.startswith(("run", "shade", "wait", "bad")))
    )


def _colour(name: str) -> str:
    return (
        f".plot .line.{name}{{stroke:var(--{name})}}"
        f".plot .dot.{name},.plot .band.{name},.plot .bar.{name}{{fill:var(--{name})}}"
    )


def _declared(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())
