"""From the start of a process to a model that answers: a checkpoint in S3, two ranks, three ways."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bloomery.bench import checkpoints, servers
from bloomery.bench.measure import in_order
from bloomery.bench.s3_server import BUCKET, s3_server
from bloomery.errors import CheckpointError, WorkerError
from bloomery.processes.ports import ReservedPort

FETCH, STREAM, BASELINE = "fetch, then load", "stream", "boto3, then from_pretrained"
RANKS = 2
PHASES = ("libraries", "transfer", "fill", "engine")
# What the ranks call what they do, by the phases that all three ways have. The rest is the engine's.
_OURS = {
    "starting": "libraries",
    "importing handler": "libraries",
    "fetching checkpoint": "transfer",
    "loading weights": "fill",
}
_WAITING = "waiting for another process to fetch the checkpoint"  # the same seconds once more, in the other rank
_CODE = Path(__file__).parents[3] / "code"
_SECONDS = 600.0


@dataclass
class Result:
    """One way. ``seconds``: from start to ready, one per round; ``phases``: of each round, the slowest rank's."""

    way: str
    size: int
    seconds: list[float] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Everything measured."""
        return asdict(self)


def run(rounds: int, layers: int, directory: Path | None = None) -> list[Result]:
    """Every way ``rounds`` times, in turns. Raises WorkerError or CheckpointError when one fails."""
    model = checkpoints.ensure("opt", layers)
    size = sum(path.stat().st_size for path in model.iterdir())
    results = [Result(way, size) for way in (FETCH, STREAM, BASELINE)]
    with tempfile.TemporaryDirectory(prefix="bloomery-bench-", dir=directory) as scratch:
        shutil.copytree(model, Path(scratch, "served", BUCKET, "model"))
        with s3_server(Path(scratch, "served")) as server:
            for turn in range(rounds):
                for result in in_order(results, turn):
                    with tempfile.TemporaryDirectory(dir=scratch) as temporary:
                        environment = {**server.environment, "TMPDIR": temporary, "OMP_NUM_THREADS": "1"}
                        start = _baseline if result.way == BASELINE else _ours
                        seconds, phases = start(environment, Path(temporary), result.way)
                    result.seconds.append(seconds)
                    result.phases.append(phases)
    return results


def _ours(environment: Mapping[str, str], scratch: Path, way: str) -> tuple[float, dict[str, float]]:
    settings = {
        "TENSOR_PARALLEL_DEGREE": str(RANKS),
        "OPTION_MODEL_ID": f"s3://{BUCKET}/model",
        "OPTION_LOAD_FORMAT": "stream" if way == STREAM else "auto",
        "OPTION_KERNEL_INJECT": "false",
        "OPTION_ALLREDUCE": "gloo",
    }
    with servers.bloomery(_CODE, scratch=scratch, env={**environment, **settings}, seconds=_SECONDS) as server:
        phases = dict.fromkeys(PHASES, 0.0)
        for name, seconds in _load_seconds(server.url).items():
            if name != _WAITING:
                phases[_OURS.get(name, "engine")] += seconds
        return server.ready, phases


def _load_seconds(url: str) -> dict[str, float]:
    """What the server says of its phases; it hears of the last one a moment after it is ready."""
    deadline = time.monotonic() + 10
    while True:
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        found = re.findall(r'load_seconds\{[^}]*phase="([^"]*)"[^}]*\} (\S+)', text)
        if "loading weights" in dict(found) or time.monotonic() > deadline:
            return {name: float(seconds) for name, seconds in found}
        time.sleep(0.2)


def _baseline(environment: Mapping[str, str], scratch: Path, way: str) -> tuple[float, dict[str, float]]:
    port = ReservedPort()
    try:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port.number), "WORLD_SIZE": str(RANKS)}
        began = time.monotonic()
        ranks = [
            subprocess.Popen(
                [sys.executable, "-m", "bloomery.bench.startup_baseline", f"s3://{BUCKET}/model"],
                env=os.environ | dict(environment) | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(RANKS)
        ]
        try:
            outputs = [rank.communicate(timeout=_SECONDS) for rank in ranks]
        except subprocess.TimeoutExpired as error:
            raise WorkerError(f"{way}: not ready within {_SECONDS:.0f} s") from error
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
        seconds = time.monotonic() - began
    finally:
        port.close()
    for rank, (_, errors) in zip(ranks, outputs, strict=True):
        if rank.returncode:
            raise CheckpointError(f"{way}: a rank ended with {rank.returncode}:\n{errors[-2000:]}")
    found = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
    return seconds, {phase: max(each[phase] for each in found) for phase in PHASES}


def table(results: Sequence[Result]) -> str:
    """Markdown: medians. What is missing between the sum of the phases and the whole is processes starting."""
    lines = [
        f"| way | start to ready s | spread | {' | '.join(f'{phase} s' for phase in PHASES)} |",
        "|---|---|---|" + "---|" * len(PHASES),
    ]
    for result in results:
        middle = median(result.seconds)
        spread = (max(result.seconds) - min(result.seconds)) / middle
        phases = " | ".join(f"{median(each[phase] for each in result.phases):.1f}" for phase in PHASES)
        lines.append(f"| {result.way} | {middle:.1f} | {spread:.0%} | {phases} |")
    return "\n".join(lines)
