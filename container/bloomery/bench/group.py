"""The rank processes of one configuration, held open between rounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from bloomery.bench.configurations import Configuration
from bloomery.bench.measure import PeakMemory, anonymous_bytes
from bloomery.errors import WorkerError
from bloomery.processes import launch_shim
from bloomery.processes.machine import cores
from bloomery.processes.ports import ReservedPort

_CONTAINER = Path(__file__).parents[2]


class Group:
    """Starts idle; ``load`` then ``generate``. Every command goes to all ranks, as a server's does."""

    def __init__(self, configuration: Configuration, log: Path) -> None:
        self.configuration = configuration
        self._log = log
        self._port = ReservedPort()
        size = configuration.tensor_parallel
        with log.open("wb") as output:
            self._ranks = [self._start(rank, size, output) for rank in range(size)]
        self.pids = [rank.pid for rank in self._ranks]
        self.baseline_bytes = [int(answer["baseline"]) for answer in self._answers()]
        self.load_seconds = 0.0
        self.peak_bytes: list[int] = []
        self.resident_bytes: list[int] = []

    def load(self, path: Path, dtype: str, allreduce: str) -> None:
        """Load the model on every rank, watching their memory."""
        configuration = self.configuration
        with PeakMemory(self.pids) as memory:
            answers = self._command(
                op="load", path=str(path), dtype=dtype, kind=configuration.kind, allreduce=allreduce,
                tensor_parallel=configuration.tensor_parallel, kernel_inject=configuration.kernel_inject,
            )  # fmt: skip
        self.load_seconds = max(float(answer["seconds"]) for answer in answers)
        self.peak_bytes = memory.peaks
        self.resident_bytes = [anonymous_bytes(pid) for pid in self.pids]

    def generate(self, batch: int, prompt: int, new: int, seed: int) -> dict[str, Any]:
        """One call; rank 0's answer."""
        with PeakMemory(self.pids, interval=0.2) as memory:
            answer = self._command(op="generate", batch=batch, prompt=prompt, new=new, seed=seed)[0]
        self.peak_bytes = [max(pair) for pair in zip(self.peak_bytes, memory.peaks, strict=True)]
        return answer

    def close(self) -> None:
        """End the ranks: first by closing their input, then by force."""
        for rank in self._ranks:
            if rank.stdin is not None:
                rank.stdin.close()
        for rank in self._ranks:
            try:
                rank.wait(timeout=5)
            except subprocess.TimeoutExpired:
                rank.kill()
                rank.wait()
            if rank.stdout is not None:
                rank.stdout.close()
        self._port.close()

    def _start(self, rank: int, size: int, log: IO[bytes]) -> subprocess.Popen[str]:
        environment = os.environ | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": self._port.host,
            "MASTER_PORT": str(self._port.number),
            "OMP_NUM_THREADS": str(max(1, cores() // size)),
            "PYTHONPATH": f"{_CONTAINER}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        }
        shim = [sys.executable, "-I", "-S", str(launch_shim.__file__), str(os.getpid())]
        return subprocess.Popen(
            [*shim, sys.executable, "-m", "bloomery.bench.rank"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

    def _command(self, **command: object) -> list[dict[str, Any]]:
        for rank in self._ranks:
            assert rank.stdin is not None
            try:
                rank.stdin.write(json.dumps(command) + "\n")
                rank.stdin.flush()
            except BrokenPipeError:
                pass  # its answer, an end of file, says so
        return self._answers()

    def _answers(self) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        for number, rank in enumerate(self._ranks):
            assert rank.stdout is not None
            line = rank.stdout.readline()
            answer: dict[str, Any] = json.loads(line) if line else {"error": "it ended"}
            if "error" in answer:
                tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
                name = self.configuration.name
                raise WorkerError(f"{name}, rank {number}: {answer['error']}\n{tail}")
            answers.append(answer)
        return answers
