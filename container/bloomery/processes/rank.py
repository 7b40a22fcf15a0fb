"""This process's own account of itself, when it is a rank: load phase, progress, and what to cancel.

Engines and tasks write it, the control channel reads it. One process is one rank, so there is one instance,
``current``; outside a rank (a test, a notebook) it is written and nobody reads it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from bloomery.protocol.control import Status

_MAX_PHASES = 32  # a handler may name as many as it likes, and each is a time series of the metrics
_NO_LOAD = ("ready", "failed")


class Rank:
    """Written by the worker's thread, read and cancelled by the control thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phase, self._percent = "starting", 0.0
        self._phase_began = time.monotonic()
        self._phases: dict[str, float] = {}  # seconds, of the phases of the load that are over
        self._steps = self._tokens = self._prompt_tokens = 0
        self._request_id = ""
        self._cancelled = threading.Event()
        # Called by the control thread as well: an asynchronous worker has many requests in flight, not one.
        self.on_cancel: Callable[[str], object] | None = None

    @property
    def index(self) -> int:
        """This rank's number, 0 when it is alone."""
        return int(os.environ.get("RANK") or 0)

    @property
    def world_size(self) -> int:
        """How many ranks there are."""
        return int(os.environ.get("WORLD_SIZE") or 1)

    def report(self, phase: str, percent: float = 0.0) -> None:
        """Say what the load is doing, and how much of that phase is done (0 to 100)."""
        with self._lock:
            if phase != self._phase:
                self._end_phase()
            self._phase, self._percent = phase, percent
            self._steps += 1

    def _end_phase(self) -> None:
        began, self._phase_began = self._phase_began, time.monotonic()
        known = self._phase in self._phases
        if self._phase not in _NO_LOAD and (known or len(self._phases) < _MAX_PHASES):
            self._phases[self._phase] = self._phases.get(self._phase, 0.0) + self._phase_began - began

    def read_prompts(self, tokens: int) -> None:
        """The model is about to read ``tokens`` tokens of prompts."""
        with self._lock:
            self._prompt_tokens += tokens

    def step(self, tokens: int = 0) -> None:
        """A sign of progress: one decode step that made ``tokens`` tokens."""
        with self._lock:
            self._steps += 1
            self._tokens += tokens

    def begin(self, request_id: str) -> None:
        """A request starts; an earlier cancellation no longer counts."""
        with self._lock:
            self._request_id = request_id
            self._steps += 1
            if self._cancelled.is_set():
                self._cancelled.clear()

    def end(self) -> None:
        """The request is over."""
        with self._lock:
            self._request_id = ""
            self._steps += 1
            if self._cancelled.is_set():
                self._cancelled.clear()

    def cancel(self, request_id: str) -> None:
        """Ask the running request to stop, if it is still that one."""
        with self._lock:
            if request_id and request_id == self._request_id:
                self._cancelled.set()
        if self.on_cancel is not None:
            self.on_cancel(request_id)

    @property
    def cancelled(self) -> bool:
        """Whether the running request shall stop. Rank 0's word decides for all: engines pass it on each step."""
        return self._cancelled.is_set()

    def status(self) -> Status:
        """What ping answers."""
        with self._lock:
            return Status(
                self._phase,
                self._percent,
                self._steps,
                self._tokens,
                self._request_id,
                prompt_tokens=self._prompt_tokens,
                phases=dict(self._phases),
            )


current = Rank()
