"""Starts ranks. Everything behind a ``RankHandle`` may one day run on another machine; today it is a child process."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bloomery.processes.child import Child
from bloomery.processes.control_group import ControlGroup
from bloomery.processes.state import exit_in_words, process_state

logger = logging.getLogger("bloomery.ranks")

STARTED = "Python engine started."  # the line by which a worker says that its socket listens


@dataclass(frozen=True)
class RankSpec:
    """Everything that is needed to start one rank."""

    label: str  # "model/0 rank 1": in front of each line it prints
    rank: int
    command: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    address: Path  # its request socket
    control_address: Path


class RankHandle(Protocol):
    """One running rank."""

    rank: int
    pid: int
    address: Path
    control_address: Path
    started: asyncio.Event  # it listens
    exited: asyncio.Future[int]

    @property
    def name(self) -> str: ...

    def state(self) -> str | None:
        """The kernel's letter for it, or None where that cannot be known."""

    def last_lines(self, count: int) -> list[str]:
        """What it printed last."""
        ...

    def exit_in_words(self) -> str:
        """``rank 1 (pid 123) was killed by signal 9 (SIGKILL)``; call it when it has exited."""
        ...

    def kill(self) -> None:
        """At once, with everything it started."""

    async def end(self, grace: float) -> None:
        """Terminate, then kill; returns when it is gone."""


class Launcher(Protocol):
    """Where ranks come from."""

    def launch(self, spec: RankSpec) -> RankHandle: ...


class LocalRank:
    """A rank that is our own child process."""

    def __init__(self, spec: RankSpec) -> None:
        self.rank = spec.rank
        self.address = spec.address
        self.control_address = spec.control_address
        self.started = asyncio.Event()
        self._label = spec.label
        self._kills = ControlGroup().out_of_memory_kills()
        self._child = Child.start(spec.command, spec.env, spec.cwd, self._on_line)
        self.pid = self._child.pid
        self.exited = self._child.exited

    @property
    def name(self) -> str:
        return f"rank {self.rank} (pid {self.pid})"

    def state(self) -> str | None:
        return process_state(self.pid)

    def last_lines(self, count: int) -> list[str]:
        return self._child.last_lines(count)

    def exit_in_words(self) -> str:
        text = f"{self.name} {exit_in_words(self.exited.result())}"
        return text + self._want_of_memory() if self.exited.result() == -signal.SIGKILL else text

    def _want_of_memory(self) -> str:
        """Whether the kernel has killed somebody of this container for that since the rank was started."""
        group = ControlGroup()
        if group.out_of_memory_kills() == self._kills:
            return ""
        limit = group.memory_limit()
        cause = f"the limit of {limit / 2**20:.0f} MiB is reached" if limit else "the machine's memory is used up"
        return f", the kernel's out-of-memory killer: {cause}"

    def kill(self) -> None:
        self._child.signal_group(signal.SIGKILL)

    async def end(self, grace: float) -> None:
        await self._child.end(grace)

    def _on_line(self, line: str) -> None:
        if STARTED in line:
            self.started.set()
        logger.info("[%s] %s", self._label, line)


class LocalLauncher:
    """Ranks on this machine."""

    def launch(self, spec: RankSpec) -> RankHandle:
        return LocalRank(spec)
