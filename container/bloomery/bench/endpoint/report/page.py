"""The report as one HTML page that needs nothing else: figures first, then plots, then tables and circumstances."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bloomery.bench.endpoint.report import charts, style
from bloomery.bench.endpoint.report.charts import Report
from bloomery.bench.endpoint.report.markdown import remarks
from bloomery.bench.endpoint.report.plot import WIDTH

_STYLE = """
*{box-sizing:border-box}
body{margin:0;background:var(--surface);color:var(--ink);font:15px/1.5 FONT;font-variant-numeric:tabular-nums}
main{max-width:1240px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:26px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:17px;margin:40px 0 12px}
.sub{color:var(--soft);margin:0}
.whose{margin:24px 0 -18px;font-weight:600}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(160px,1fr));gap:12px;margin:28px 0 0}
.tile,.panel{background:var(--card);border:1px solid var(--edge);border-radius:12px}
.tile{padding:14px 16px}
.tile b{display:block;font-size:26px;white-space:nowrap;font-weight:600;line-height:1.15;letter-spacing:-.02em}
.tile b small{font-size:14px;font-weight:500;color:var(--soft);letter-spacing:0;margin-left:5px}
.tile span{color:var(--soft);font-size:13px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:16px;margin-top:24px}
.panel{padding:16px 16px 10px}
.wide{grid-column:1/-1}
.plot{display:block;width:100%;height:auto}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--edge);border-radius:12px}
table{border-collapse:collapse;width:100%;font-size:14px}
th{font-weight:500;color:var(--soft);font-size:12.5px;text-align:right;padding:10px 14px;
border-bottom:1px solid var(--edge);white-space:nowrap}
td{text-align:right;padding:8px 14px;border-top:1px solid var(--grid);white-space:nowrap}
tr:first-child td{border-top:0}
th:first-child,td:first-child{text-align:left}
td i{font-style:normal;color:var(--soft);font-size:12px}
.warn{background:var(--warn);color:var(--warnink);border-radius:10px;padding:12px 16px;margin-top:20px;font-size:14px}
.warn p{margin:2px 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 20px;font-size:14px;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
footer{color:var(--soft);font-size:13px;margin-top:36px}
details{margin-top:12px}summary{cursor:pointer;color:var(--soft);font-size:14px}
"""


def render(reports: Sequence[Report]) -> str:
    """``reports``: the newest first; its figures are the large ones."""
    newest = reports[0]
    title = " · ".join(str(report["name"]) for report in reports)
    data = json.dumps(reports, separators=(",", ":")).replace("<", "\\u003c")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}: bloomery bench</title><style>{style.variables()}{style.plots()}"
        f"{_STYLE.replace('FONT', style.FONT)}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="sub">{charts.described(reports)}</p>'
        f"{_tiles(newest, several=len(reports) > 1)}{_warnings(reports)}"
        f'<div class="plots">{_plots(reports)}</div>'
        f"{_published(reports)}{_levels(reports)}{_errors(reports)}{_circumstances(reports)}"
        "<footer>Latency and time to first token begin when a request was due. In brackets, and in the tables: 95 % "
        "intervals of the percentiles by order statistics; a question mark has no bound with so few answers.</footer>"
        f'<script type="application/json" id="reports">{data}</script></main></body></html>\n'
    )


def _plots(reports: Sequence[Report]) -> str:
    plots = charts.every(reports)
    panels = [f'<div class="panel">{plot.svg()}</div>' for plot in plots]
    if len(plots) % 2:  # the last one would stand beside nothing
        plots[-1].width = 2 * WIDTH + 50
        panels[-1] = f'<div class="panel wide">{plots[-1].svg()}</div>'
    return "".join(panels)


def _tiles(report: Report, *, several: bool) -> str:
    best = next(level for level in report["levels"] if level["load"]["name"] == report["best_level"])
    first = report["levels"][0]
    tiles: list[tuple[str, str, str]] = []
    table = report.get("table")
    if table and table["tokens_per_s"]:
        tiles.append(
            (_short(table["tokens_per_s"]), "tokens/s", f"batch {table['batch']} × {table['new_tokens']} / P50")
        )
        tiles += [(*_time(table["latency_ms"][f"p{each}"]), f"P{each} of whole calls") for each in (50, 90, 99)]
    elif best["output_tokens"]:
        tiles.append(
            (_short(report["throughput"]["output_tokens_per_s"]), "tokens/s", f"output, at {report['best_level']}")
        )
    if not table:
        tiles.append((_short(report["throughput"]["requests_per_s"]), "requests/s", f"at {report['best_level']}"))
        for figure, words in (("ttft_ms", "to the first token, P50"), ("tpot_ms", "per further token, P50")):
            if first[figure]:
                tiles.append((*_time(first[figure]["p50"]), f"{words}, {first['load']['name']}"))
    goods = [level["goodput"] for level in report["levels"] if "goodput" in level]
    if goods:
        most = max(goods, key=lambda each: float(each["requests_per_s"]))
        told = ", ".join(f"{name} ≤ {value:g} ms" for name, value in most["objectives"].items())
        tiles.append((_short(most["requests_per_s"]), "requests/s", f"goodput: {told}"))
    if report["load_seconds"] is not None:
        tiles.append((*_time(1000 * report["load_seconds"]), "to load the model"))
    cost = report.get("cost") or {}
    if cost.get("per_million_output_tokens") is not None:
        tiles.append(
            (_short(cost["per_million_output_tokens"]), "", f"per million tokens, {cost['per_hour']:g} an hour")
        )
    caption = f'<p class="whose">{escape(report["name"])}</p>' if several else ""
    return (
        caption
        + '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b>{escape(value)}<small>{escape(unit)}</small></b><span>{escape(words)}</span></div>'
            for value, unit, words in tiles
        )
        + "</div>"
    )


def _warnings(reports: Sequence[Report]) -> str:
    lines = [line for report in reports for line in remarks(report, named=len(reports) > 1)]
    return f'<div class="warn">{"".join(f"<p>{escape(line)}</p>" for line in lines)}</div>' if lines else ""


def _published(reports: Sequence[Report]) -> str:
    rows = [report["table"] for report in reports if report.get("table")]
    if not rows:
        return ""
    head = ["endpoint", "batch × new tokens", "load s", "calls", "P50 ms", "P90 ms", "P99 ms", "tokens/s"]
    return "<h2>The published table</h2>" + _table(
        head,
        [
            [
                escape(row["name"]),
                f"{row['batch']} × {row['new_tokens']}",
                _short(row["load_seconds"]),
                str(row["calls"]),
                *(_interval(row["latency_ms"], each) for each in (50, 90, 99)),
                _short(row["tokens_per_s"]),
            ]
            for row in rows
        ],
    )


def _levels(reports: Sequence[Report]) -> str:
    parts = []
    for report in reports:
        if report.get("table"):
            continue
        head = ["load", "requests", "requests/s", "output tokens/s"]
        figures = [("TTFT", "ttft_ms"), ("TPOT", "tpot_ms"), ("gap", "itl_ms"), ("latency", "latency_ms")]
        head += [f"{name} P{each} ms" for name, _ in figures for each in (50, 99)] + ["others' CPU"]
        rows = [
            [
                escape(level["load"]["name"]),
                f"{level['succeeded']}" + (f" of {level['requests']}" if level["errors"] else ""),
                _short(level["throughput"]["requests_per_s"]),
                _short(level["throughput"]["output_tokens_per_s"]),
                *(_interval(level[name], each) for _, name in figures for each in (50, 99)),
                f"{level['processor']['others']:.0%}",
            ]
            for level in report["levels"]
        ]
        parts.append(f"<h2>{escape(report['name'])}, level by level</h2>{_table(head, rows)}")
    return "".join(parts)


def _errors(reports: Sequence[Report]) -> str:
    rows = [
        [
            escape(f"{report['name']}, {level['load']['name']}"),
            escape(kind),
            str(each["count"]),
            escape(each["first"][:160]),
        ]
        for report in reports
        for level in report["levels"]
        for kind, each in level["errors"].items()
    ]
    return "<h2>What went wrong</h2>" + _table(["where", "kind", "count", "the first one said"], rows) if rows else ""


def _circumstances(reports: Sequence[Report]) -> str:
    parts = []
    for report in reports:
        work, client = report["workload"], report["client"]
        told = {
            "measured": report["time"],
            "asked for": f"{work['batch']} × {work['max_new_tokens']} new tokens per request"
            + ("; streamed" if work["stream"] else "; whole answers"),
            "prompts": work["prompts"],
            "client": f"{client['machine']}, {client['cores']} cores, bloomery {report['bloomery']}",
            "load time from": report["load_seconds_from"],
            "tokens counted by": ", ".join({each for level in report["levels"] for each in level["tokens_counted_by"]})
            or "–",
        }
        entries = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in told.items())
        parts.append(f"<h2>{escape(report['name'])}, how it was measured</h2><dl>{entries}</dl>")
    return "".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _interval(figures: Mapping[str, Any] | None, percent: int) -> str:
    if not figures:
        return "–"
    ends = figures.get(f"p{percent}_interval")
    between = "" if ends is None else f" <i>[{'–'.join('?' if end is None else _short(end) for end in ends)}]</i>"
    return _short(figures[f"p{percent}"]) + between


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _time(milliseconds: float) -> tuple[str, str]:
    return (_short(milliseconds / 1000), "s") if milliseconds >= 1000 else (_short(milliseconds), "ms")
