"""``bloomery shard``: a checkpoint split over ranks ahead of time, or in another precision."""

from __future__ import annotations

from collections import Counter

from bloomery import cli
from bloomery.checkpoints.progress import megabytes
from bloomery.checkpoints.splitting.shard import Report, shard
from bloomery.cli.bar import reporting
from bloomery.cli.interruption import terminable


def write(source: str, target: str, ranks: int, dtype: str | None, revision: str | None) -> int:
    """Do it, and print what was made."""
    with terminable(), reporting() as seen:
        report = shard(source, target, tensor_parallel=ranks, dtype=dtype, revision=revision, seen=seen)
    for line in _lines(report):
        print(line)
    return cli.OK


def _lines(report: Report) -> list[str]:
    lines = [
        f"{name}: largest error {error.largest:.3g}, relative {error.relative_rms:.2%}"
        for name, error in sorted(report.rounded.items())
    ]
    by_rank: Counter[str] = Counter()
    for name, entry in report.files.items():
        if name.endswith(".safetensors"):
            by_rank[name[3:5] if name.startswith("tp_") else ""] += entry.size
    whole = by_rank.pop("", 0)
    shares = ", ".join(f"rank {int(rank)} {megabytes(size)}" for rank, size in sorted(by_rank.items()))
    if shares:
        shares += f", whole on every rank {megabytes(whole)}"
    if not report.made:
        return [f"{report.target}: there already, and made of the same files ({shares or megabytes(whole)})"]
    rate = f"{megabytes(report.bytes_read)} read in {report.seconds:.1f} s"
    return [*lines, f"{report.target}: {len(report.files)} files, {shares or megabytes(whole)}; {rate}"]
