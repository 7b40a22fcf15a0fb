"""Which plots a report has, and what stands in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import escape
from statistics import median
from typing import Any

from bloomery.bench.endpoint.report.axes import Linear, Logarithmic, Scale, milliseconds, written
from bloomery.bench.endpoint.report.plot import Plot

Report = Mapping[str, Any]
Level = Mapping[str, Any]
RUNS = 6  # colours for as many; further runs have those of the first again
SHADES = 5  # of one colour, for the levels of one run
_TIMELINE_ROWS = 60


def throughput(reports: Sequence[Report]) -> Plot | None:
    """Output tokens (or requests) per second against the load, with the memory's limit where it is known."""
    kind, runs = _swept(reports, "concurrency")
    if not runs:
        return None
    by_tokens = all(level["output_tokens"] for _, levels in runs for level in levels)
    unit = "output_tokens_per_s" if by_tokens else "requests_per_s"
    reached = [level["throughput"][unit] for _, levels in runs for level in levels]
    limits = [level["limit_output_tokens_per_s"] for _, levels in runs for level in levels if _limited(level)]
    # The limit may be far off: the axis shows it when it is near enough to tell something.
    top = (
        max(reached)
        if not limits or min(limits) > 4 * max(reached)
        else max(max(reached), min(*limits, 4 * max(reached)))
    )
    plot = Plot(
        "Throughput",
        _load_axis(runs),
        Linear.to(top * 1.08),
        _load_name(kind),
        "output tokens per second" if by_tokens else "requests per second",
    )
    for index, (name, levels) in enumerate(runs):
        colour = f"run{index % RUNS}"
        limited = [(level["load"]["value"], level["limit_output_tokens_per_s"]) for level in levels if _limited(level)]
        if limited:
            plot.line(
                limited,
                colour,
                name="" if index else "memory's limit",
                style="line dashed",
                dots=False,
            )
        plot.line([(level["load"]["value"], level["throughput"][unit]) for level in levels], colour, name=_short(name))
    return plot


def first_token(reports: Sequence[Report]) -> Plot | None:
    """Time to first token against the load: P50, and up to P90 shaded; of one run P99, too."""
    return _times(reports, "ttft_ms", "Time to first token")


def further_tokens(reports: Sequence[Report]) -> Plot | None:
    """Time per output token after the first, against the load."""
    return _times(reports, "tpot_ms", "Time per further token")


def whole_latency(reports: Sequence[Report]) -> Plot | None:
    """The same of whole answers, for what is not streamed."""
    return _times(reports, "latency_ms", "Latency")


def _times(reports: Sequence[Report], figure: str, title: str) -> Plot | None:
    kind, runs = _swept(reports, "rate")
    runs = [(name, [level for level in levels if level[figure]]) for name, levels in runs]
    runs = [(name, levels) for name, levels in runs if levels]
    if not runs:
        return None
    alone = len(runs) == 1
    shown = "p99" if alone else "p90"
    highest = max(level[figure][shown] for _, levels in runs for level in levels)
    plot = Plot(title, _load_axis(runs), Linear.to(highest * 1.05), _load_name(kind), "", y_written=milliseconds)
    for index, (name, levels) in enumerate(runs):
        colour = f"run{index % RUNS}"
        places = [level["load"]["value"] for level in levels]
        middle, ninth = ([level[figure][each] for level in levels] for each in ("p50", "p90"))
        plot.band(
            list(zip(places, ninth, strict=True)),
            list(zip(places, middle, strict=True)),
            colour,
            name="to P90" if alone else "",
        )
        plot.line(
            list(zip(places, middle, strict=True)), colour, name="P50" if alone else f"{_short(name)}, P50 to P90"
        )
        if alone:
            slowest = [level[figure]["p99"] for level in levels]
            plot.line(list(zip(places, slowest, strict=True)), colour, name="P99", style="line dotted")
    return plot


def latency(reports: Sequence[Report]) -> Plot | None:
    """How latency is distributed: of one run its levels, of several the level with the most throughput."""
    return _distribution(reports, "latency_ms", "Latency of whole answers", logarithmic=False)


def gaps(reports: Sequence[Report]) -> Plot | None:
    """How the times between tokens are distributed."""
    return _distribution(reports, "itl_ms", "Between two tokens", logarithmic=True)


def _distribution(reports: Sequence[Report], figure: str, title: str, *, logarithmic: bool) -> Plot | None:
    curves: list[tuple[str, str, list[float]]] = []
    if len(reports) == 1:
        _, runs = _swept(reports, "concurrency")
        levels = [level for level in runs[0][1] if level["curves"][figure]]
        for index, level in enumerate(levels):
            shade = f"shade{SHADES - 1 if len(levels) == 1 else round(index * (SHADES - 1) / (len(levels) - 1))}"
            curves.append((level["load"]["name"], shade, level["curves"][figure]))
    else:
        for index, report in enumerate(reports):
            best = next(level for level in report["levels"] if level["load"]["name"] == report["best_level"])
            if best["curves"][figure]:
                name = f"{_short(report['name'])}, {report['best_level']}"
                curves.append((name, f"run{index % RUNS}", best["curves"][figure]))
    if not curves:
        return None
    values = [value for _, _, curve in curves for value in curve]
    # On a logarithmic axis tokens that came together with others would push all the rest aside.
    least = median(values) / 20
    x: Scale = Logarithmic.over([each for each in values if each >= least]) if logarithmic else Linear.to(max(values))
    share: Callable[[float], str] = "{:.0%}".format
    plot = Plot(title, x, Linear(0, 1, (0, 0.25, 0.5, 0.75, 1)), "at most", "share", milliseconds, share)
    for name, colour, curve in curves:
        plot.distribution(curve, colour, name=name)
    return plot


def timeline(report: Report) -> Plot | None:
    """What became of each request of the heaviest level: waiting for its first token, then decoding."""
    _, runs = _swept([report], "concurrency")
    level = runs[0][1][-1]
    calls = level["timeline"][:_TIMELINE_ROWS]
    if not calls:
        return None
    count = len(calls)
    plot = Plot(
        f"Each request at {level['load']['name']}",
        Linear.to(max(call["done"] for call in calls)),
        Linear(-0.5, max(count - 0.5, 0.5), ()),
        "seconds",
        f"the first {count}" if level["requests"] > count else "",
        lambda value: f"{value:g}",
    )
    thickness = min(9.0, 190 / count)
    streamed = failed = False
    for index, call in enumerate(calls):
        row = count - 1 - index
        if call["failure"]:
            failed = True
            plot.bar(call["due"], call["done"], row, "bad", f"{index}: {call['failure']}", thickness)
            continue
        first = call["first"] if call["first"] is not None else call["done"]
        plot.bar(call["due"], first, row, "wait", f"{index}: {first - call['due']:.3f} s to the first token", thickness)
        if call["first"] is not None:
            streamed = True
            plot.bar(first, call["done"], row, "run0", f"{index}: {call['done'] - first:.3f} s of decoding", thickness)
    plot.explain("until the first token" if streamed else "until the answer", "bar", "wait")
    if streamed:
        plot.explain("decoding", "bar", "run0")
    if failed:
        plot.explain("failed", "bar", "bad")
    return plot


def bars(reports: Sequence[Report], figure: str, title: str, unit: str) -> Plot | None:
    """One bar per run of the published table."""
    rows = [(report["name"], report["table"][figure]) for report in reports if report.get("table")]
    rows = [(name, value) for name, value in rows if value]
    if not rows:
        return None
    count = len(rows)
    plot = Plot(title, Linear.to(max(value for _, value in rows) * 1.15), Linear(-0.5, count - 0.5, ()), unit, "")
    for index, (name, value) in enumerate(rows):
        row = count - 1 - index
        plot.bar(0, value, row, f"run{index % RUNS}", f"{name}: {value:g} {unit}", min(30.0, 150 / count))
        plot.note(value * 1.01 + plot.x.ticks[-1] * 0.01, row, written(value))
        plot.explain(_short(name), "bar", f"run{index % RUNS}")
    return plot


def every(reports: Sequence[Report]) -> list[Plot]:
    """What these reports have something to show in, in order of interest."""
    swept = [report for report in reports if len(report["levels"]) > 1]
    found = [
        bars(reports, "tokens_per_s", "Tokens per second", "tokens/s") if len(reports) > 1 else None,
        bars(reports, "load_seconds", "Time to load", "seconds") if len(reports) > 1 else None,
        throughput(swept),
        first_token(swept) or whole_latency(swept),
        latency(reports),
        further_tokens(swept),
        gaps(reports),
        *(timeline(report) for report in reports[:1]),
    ]
    return [plot for plot in found if plot is not None]


def described(reports: Sequence[Report]) -> str:
    """One line, escaped: what was asked for, when, and by whom it was measured."""
    newest = reports[0]
    work = newest["workload"]
    prompts = "1 prompt" if work["batch"] == 1 else f"{work['batch']} prompts"
    told = f"{prompts} × {work['max_new_tokens']} new tokens per request, {newest['time'][:10]}"
    others = max(level["processor"]["others"] for report in reports for level in report["levels"])
    client = f"client on {newest['client']['cores']} cores of {newest['client']['machine']}"
    return escape(f"{told}, {client}, of which others took up to {others:.0%}")


def _swept(reports: Sequence[Report], preferred: str) -> tuple[str, list[tuple[str, list[Level]]]]:
    """The kind of load that the plot is over (the preferred one where several levels have it), and each run's levels
    of that kind in order."""
    kinds = Counter(level["load"]["kind"] for report in reports for level in report["levels"])
    kind = preferred if kinds[preferred] > 1 else max(sorted(kinds), key=kinds.__getitem__, default="")
    runs = []
    for report in reports:
        levels = [level for level in report["levels"] if level["load"]["kind"] == kind]
        if levels:
            runs.append((report["name"], sorted(levels, key=lambda level: float(level["load"]["value"]))))
    return kind, runs


def _load_axis(runs: Sequence[tuple[str, Sequence[Level]]]) -> Scale:
    return Logarithmic.at([level["load"]["value"] for _, levels in runs for level in levels])


def _load_name(kind: str) -> str:
    return {"concurrency": "requests under way", "rate": "requests per second that arrive"}.get(kind, kind)


def _limited(level: Level) -> bool:
    return "limit_output_tokens_per_s" in level


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"
