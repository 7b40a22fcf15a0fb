"""A report as text: the tables that are printed, and kept beside the JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bloomery.bench import tables

Report = Mapping[str, Any]


def render(reports: Sequence[Report]) -> str:
    """Everything of one measurement or of several, the newest first."""
    parts = []
    rows = [report["table"] for report in reports if "table" in report]
    if rows:
        parts.append(published_table(rows))
        sources = " / ".join(dict.fromkeys(row["load_seconds_from"] for row in rows))
        parts.append(f"Load: {sources}. In brackets: 95 % intervals of the percentiles; ? has no bound.")
    swept = [report for report in reports if "table" not in report]
    if swept:
        parts.append(level_table(swept))
    parts += [line for report in reports if (line := _of_limit(report))]
    costs = [report for report in reports if report.get("cost")]
    if costs:
        parts.append(cost_table(costs))
    said = [line for report in reports for line in remarks(report, named=len(reports) > 1)]
    parts.append("\n".join(f"- {line}" for line in said))
    return "\n\n".join(part for part in parts if part) + "\n"


def published_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The columns of the published table."""
    head = ["endpoint", "batch × new", "load s", "calls", "P50 ms", "P90 ms", "P99 ms", "tokens/s"]
    return tables.markdown(
        head,
        [
            [
                row["name"],
                f"{row['batch']} × {row['new_tokens']}",
                _number(row["load_seconds"], 1),
                str(row["calls"]),
                *(_with_interval(row["latency_ms"], percent) for percent in (50, 90, 99)),
                _number(row["tokens_per_s"], 1),
            ]
            for row in rows
        ],
    )


def level_table(reports: Sequence[Report]) -> str:
    """A line per level; times are P50 / P90 / P99 in milliseconds."""
    several = len(reports) > 1
    good = any("goodput" in level for report in reports for level in report["levels"])
    head = [*(["endpoint"] if several else []), "load", "requests", "failed", "requests/s", "output tokens/s"]
    head += ["TTFT ms", "TPOT ms", "gaps ms", "latency ms", *(["goodput/s", "met"] if good else []), "others' CPU"]
    return tables.markdown(
        head,
        [
            [
                *([report["name"]] if several else []),
                level["load"]["name"],
                str(level["requests"]),
                str(level["requests"] - level["succeeded"]),
                f"{level['throughput']['requests_per_s']:.2f}",
                f"{level['throughput']['output_tokens_per_s']:.1f}",
                *(_three(level[name]) for name in ("ttft_ms", "tpot_ms", "itl_ms", "latency_ms")),
                *(_goodput(level) if good else []),
                f"{level['processor']['others']:.0%}",
            ]
            for report in reports
            for level in report["levels"]
        ],
    )


def _of_limit(report: Report) -> str:
    """How far there is to go, as it is where most of it is reached."""
    level = next(level for level in report["levels"] if level["load"]["name"] == report["best_level"])
    limit = level.get("limit_output_tokens_per_s")
    if limit is None:
        return ""
    reached = report["table"]["tokens_per_s"] if "table" in report else level["throughput"]["output_tokens_per_s"]
    if reached is None:
        return ""
    at = level["load"]["name"]
    return f"{report['name']}: {reached / limit:.0%} of the {_number(limit)} tokens/s that the memory allows at {at}."


def cost_table(reports: Sequence[Report]) -> str:
    """Of the level with the most throughput."""
    head = ["endpoint", "per hour", "per 1,000 requests", "per million output tokens", "at"]
    return tables.markdown(
        head,
        [
            [
                report["name"],
                f"{report['cost']['per_hour']:g}",
                _number(report["cost"]["per_thousand_requests"], 4),
                _number(report["cost"]["per_million_output_tokens"], 4),
                report["best_level"],
            ]
            for report in reports
        ],
    )


def _goodput(level: Mapping[str, Any]) -> list[str]:
    found = level.get("goodput")
    return [f"{found['requests_per_s']:.2f}", f"{found['share']:.0%}"] if found else ["–", "–"]


def _three(figures: Mapping[str, Any] | None) -> str:
    if not figures:
        return "–"
    return " / ".join(_number(figures[f"p{percent}"]) for percent in (50, 90, 99))


def _with_interval(figures: Mapping[str, Any] | None, percent: int) -> str:
    if not figures:
        return "–"
    low, high = figures[f"p{percent}_interval"]
    return f"{_number(figures[f'p{percent}'])} [{_number(low, missing='?')}–{_number(high, missing='?')}]"


def _number(value: float | None, digits: int | None = None, missing: str = "–") -> str:
    if value is None:
        return missing
    if digits is None:
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def remarks(report: Report, *, named: bool) -> list[str]:
    """What a reader must know before relying on the figures; ``named``: of which report."""
    found = []
    if "table" in report:
        found += report["table"]["warnings"]
    by_warning: dict[str, list[str]] = {}
    for level in report["levels"]:
        for warning in level["warnings"]:
            by_warning.setdefault(warning, []).append(level["load"]["name"])
    for warning, levels in by_warning.items():
        found.append(warning if len(levels) == len(report["levels"]) else f"{', '.join(levels)}: {warning}")
    begin = f"{report['name']}: " if named else ""
    return [f"{begin}{each}" for each in found]
