"""The table of ``scripts/bench fetch``, and what it was to reach."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from bloomery.bench.fetching import Result
from bloomery.bench.fetching_clients import MANAGER, MANAGER_TUNED, S5CMD, S5CMD_TUNED, UNVERIFIED, VERIFIED

_MIB = 2**20


def table(results: Sequence[Result]) -> str:
    """Markdown: medians, with the spread of the wall time; the fastest run is the one that others disturbed least."""
    lines = [
        "| checkpoint | client | s | fastest | spread | MiB/s | CPU s | peak RSS MiB | others' CPU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        processor = _processor_seconds(result)
        fastest = min(run.wall_seconds for run in result.runs)
        peak = max(run.peak_bytes for run in result.runs) / _MIB
        others = sum(run.others for run in result.runs) / len(result.runs)
        lines.append(
            f"| {result.checkpoint} | {result.client} | {result.seconds:.2f} | {fastest:.2f} | {result.spread:.0%} "
            f"| {result.size / _MIB / result.seconds:.0f} | {processor:.2f} | {peak:.0f} | {others:.0%} |"
        )
    return "\n".join(lines)


def verdicts(results: Sequence[Result]) -> list[str]:
    """How ours compares, for each checkpoint: with the faster form of each peer, and with itself unverified."""
    lines = []
    for checkpoint in dict.fromkeys(result.checkpoint for result in results):
        by_name = {result.client: result for result in results if result.checkpoint == checkpoint}
        ours = by_name[VERIFIED]
        parts = []
        for name, forms in (("TransferManager", (MANAGER, MANAGER_TUNED)), ("s5cmd", (S5CMD, S5CMD_TUNED))):
            present = [by_name[form] for form in forms if form in by_name]
            if present:
                best = min(present, key=lambda result: result.seconds)
                parts.append(f"{_ratio(best, ours):.2f} x {name} ({best.client})")
        without = by_name[UNVERIFIED]
        processor = _processor_seconds(ours) / _processor_seconds(without)
        parts.append(f"verification costs {_ratio(ours, without) - 1:+.1%} ({processor - 1:+.1%} processor time)")
        lines.append(f"{checkpoint}: " + ", ".join(parts))
    return lines


def _ratio(slower: Result, faster: Result) -> float:
    """How many times as fast; the median over the rounds, because both of a round met the same machine."""
    return median(slow.wall_seconds / fast.wall_seconds for slow, fast in zip(slower.runs, faster.runs, strict=True))


def _processor_seconds(result: Result) -> float:
    return median(run.processor_seconds for run in result.runs)
