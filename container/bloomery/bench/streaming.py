"""Streaming to tensors beside run:ai's model streamer: the same objects from the same server, in turns."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bloomery.bench.measure import ProcessorTime, Runs, in_order
from bloomery.bench.s3_server import BUCKET, s3_server, write_checkpoint
from bloomery.errors import CheckpointError

OURS, PAIR, RUNAI = "bloomery, one rank", "bloomery, two ranks", "run:ai's streamer"
_MIB = 2**20
_TENSOR_BYTES = 32 << 20
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Run:
    """One load. Of several ranks: the slowest one's seconds, the sum of processor time, the largest peak.

    ``peak_bytes``: anonymous memory above what the imports took; ``share_bytes``: of the tensors of one rank;
    ``read_bytes``: by all ranks together. ``others``: part of the cores' time that went to neither side.
    """

    wall_seconds: float
    processor_seconds: float
    peak_bytes: int
    share_bytes: int
    read_bytes: int
    others: float


@dataclass
class Result(Runs):
    """One client on one checkpoint of ``size`` bytes."""

    client: str
    size: int
    files: int
    runs: list[Run] = field(default_factory=list)


def run(rounds: int, checkpoints: Sequence[tuple[int, int]], directory: Path | None = None) -> list[Result]:
    """Every client ``rounds`` times on each checkpoint (bytes, files). Raises CheckpointError when one fails."""
    results: list[Result] = []
    for size, files in checkpoints:
        with served(size, files, directory) as (environment, server, scratch):
            present = [OURS, PAIR] + [RUNAI] * (importlib.util.find_spec("runai_model_streamer") is not None)
            contestants = [Result(name, size, files) for name in present]
            _load(OURS, environment, server, scratch)  # the server computes its checksums once
            for turn in range(rounds):
                for result in in_order(contestants, turn):
                    result.runs.append(_load(result.client, environment, server, scratch))
            results += contestants
    return results


@contextmanager
def served(size: int, files: int, directory: Path | None) -> Iterator[tuple[Mapping[str, str], int, Path]]:
    """A random checkpoint behind an S3 server: a client's environment, the server's process id, and scratch space."""
    parent = directory or (_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir()))
    if (free := shutil.disk_usage(parent).free) < size + (64 << 20):
        raise CheckpointError(f"{parent} has {free // _MIB} MiB free; the benchmark needs {size // _MIB} MiB there")
    with tempfile.TemporaryDirectory(prefix="bloomery-bench-", dir=parent) as scratch:
        write_checkpoint(Path(scratch, "served", BUCKET, "model"), size, files, _TENSOR_BYTES)
        with s3_server(Path(scratch, "served")) as server:
            extra = {"RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0", "OMP_NUM_THREADS": "1"}
            yield {**server.environment, **extra}, server.pid, Path(scratch)


def _load(client: str, environment: Mapping[str, str], server: int, scratch: Path) -> Run:
    ranks = 2 if client == PAIR else 1
    command = [sys.executable, "-m", "bloomery.bench.streaming_clients", "runai" if client == RUNAI else "ours"]
    with tempfile.TemporaryDirectory(dir=scratch) as meeting:
        before = ProcessorTime.now([os.getpid(), server])
        processes = [
            subprocess.Popen(
                [*command, f"s3://{BUCKET}/model", *((str(rank), "2", meeting) if ranks > 1 else ())],
                env=dict(environment),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(ranks)
        ]
        try:
            outputs = [process.communicate(timeout=600) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        after = ProcessorTime.now([os.getpid(), server])
    for process, (_, errors) in zip(processes, outputs, strict=True):
        if process.returncode:
            raise CheckpointError(f"{client} ended with {process.returncode}:\n{errors[-2000:]}")
    found = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
    processor = sum(each["processor"] for each in found)
    return Run(
        max(each["seconds"] for each in found),
        processor,
        max(each["peak"] for each in found),
        max(each["bytes"] for each in found),
        found[0]["by_all"],
        _others(before, after, processor),
    )


def _others(before: ProcessorTime, after: ProcessorTime, clients: float) -> float:
    """The clients' own imports count as others'."""
    others = (after.everybody - before.everybody) - (after.ours - before.ours) - clients
    return min(1.0, max(0.0, others / ((after.wall - before.wall) * (os.cpu_count() or 1))))


def table(results: Sequence[Result]) -> str:
    """Markdown: medians, with the spread of the wall time."""
    lines = [
        "| checkpoint | client | s | spread | MiB/s | CPU s | peak RssAnon / share | bytes read / size | others' CPU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        runs = result.runs
        lines.append(
            f"| {result.size / _MIB:,.0f} MiB in {result.files} | {result.client} | {result.seconds:.2f} "
            f"| {result.spread:.0%} | {result.size / _MIB / result.seconds:.0f} "
            f"| {median(run.processor_seconds for run in runs):.2f} "
            f"| {max(run.peak_bytes for run in runs) / _MIB:.0f} MiB / {runs[0].share_bytes / _MIB:.0f} MiB = "
            f"{max(run.peak_bytes for run in runs) / runs[0].share_bytes:.2f} "
            f"| {max(run.read_bytes for run in runs) / result.size:.4f} "
            f"| {sum(run.others for run in runs) / len(runs):.0%} |"
        )
    return "\n".join(lines)


def verdicts(results: Sequence[Result]) -> list[str]:
    """How many times as fast as run:ai's, for each checkpoint; the median over the rounds."""
    lines = []
    for size in dict.fromkeys(result.size for result in results):
        by_name = {result.client: result for result in results if result.size == size}
        if RUNAI in by_name:
            rounds = zip(by_name[RUNAI].runs, by_name[OURS].runs, strict=True)
            ratio = median(theirs.wall_seconds / ours.wall_seconds for theirs, ours in rounds)
            lines.append(f"{size / _MIB:,.0f} MiB: {ratio:.2f} x run:ai's streamer")
        else:
            lines.append(f"{size / _MIB:,.0f} MiB: run:ai's streamer is not installed, so there is nothing to compare")
    return lines
