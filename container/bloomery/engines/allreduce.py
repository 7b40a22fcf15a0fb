"""How the ranks of a group on one CPU machine add up their shares: gloo, or DeepSpeed's shared-memory operator.

Gloo works everywhere. The operator spins: two ranks on quiet cores decode up to twice as fast with it, on busy cores
one all-reduce of 16 KB took it 1.6 to 3.9 ms against gloo's 0.45 to 1.5. So it is measured at each start of a group, by
all ranks together, and rank 0's finding counts for all. Neither holds Python's lock while it waits (measured: a thread
that ticks every 10 ms never missed one), so a rank that waits for its peer still answers on its control channel.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist

from bloomery.engines import shm_operator
from bloomery.errors import ConfigurationError

log = logging.getLogger(__name__)

PREFERENCES = ("auto", "gloo", "shm")
# What one decode step of a small batch sums: 4 rows of 1024 numbers.
_MEASURED_NUMBERS = 4096
_TURNS, _ROUNDS = 9, 16
# It must win clearly: it keeps a core busy while it waits, and the measurement sees only this moment.
_CLEARLY_FASTER = 0.7
# Past this the question is answered; a spinning peer without a core can take a scheduler's slice per call.
_LONGEST = 1.0


@dataclass(frozen=True)
class AllReduceChoice:
    """What was chosen and why. Times are the mean of one all-reduce of 16 KB, where they were measured."""

    kind: Literal["none", "gloo", "shm", "device"]
    reason: str
    gloo_us: float | None = None
    shm_us: float | None = None

    def __str__(self) -> str:
        return f"{self.kind} ({self.reason})"


def choose(preference: str = "auto") -> AllReduceChoice:
    """Decide for this group, on all ranks alike, and let DeepSpeed's layers use it.

    Every rank calls it, with the same preference, once torch.distributed and deepspeed.comm are up. Where the operator
    is wanted but not compiled yet, rank 0 starts that in the background: it serves the next start.
    """
    if preference not in PREFERENCES:
        raise ConfigurationError(f"allreduce={preference!r} is not one of {', '.join(PREFERENCES)}")
    choice = _choose(preference)
    if choice.kind in ("gloo", "shm") and dist.get_rank() == 0:
        unmet = preference == "shm" and choice.kind != "shm"
        log.log(logging.WARNING if unmet else logging.INFO, "all-reduce between ranks: %s", choice)
    return choice


def _choose(preference: str) -> AllReduceChoice:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return AllReduceChoice("none", "there is one rank")
    if dist.get_backend() != "gloo":
        return AllReduceChoice("device", f"{dist.get_backend()} sums on the devices")
    _use_operator(0)
    if preference == "gloo":
        return AllReduceChoice("gloo", "as configured")
    reason = _join()
    if reason:
        return AllReduceChoice("gloo", reason)
    if preference == "shm":
        _use_operator(_operator.vector_kernel_level())
        return AllReduceChoice("shm", "as configured")
    gloo, shm = _agreed(_measure())
    faster = shm < _CLEARLY_FASTER * gloo
    measured = f"shared memory {shm * 1e6:.0f} us, gloo {gloo * 1e6:.0f} us"
    if faster:
        _use_operator(_operator.vector_kernel_level())
    return AllReduceChoice("shm" if faster else "gloo", measured, gloo * 1e6, shm * 1e6)


# The operator keeps its buffers in static variables, so a process joins once and for all.
_operator: Any = None


def _join() -> str:
    """Load the operator on all ranks and map their buffers; in words why not, the same on all ranks."""
    global _operator
    if _operator is not None:
        return ""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    reason = _first_reason(shm_operator.obstacle(world_size))
    if reason:
        return reason
    absent = _first_reason("" if shm_operator.compiled_path().exists() else "absent")
    if absent:
        return _first_reason(shm_operator.build_in_background() if rank == 0 else "")
    module, failure = None, ""
    try:
        module = shm_operator.load()
    except (ImportError, OSError) as error:
        failure = f"the compiled shared-memory all-reduce does not load: {error}"
    reason = _first_reason(failure)
    if reason:
        return reason
    os.environ["LOCAL_SIZE"] = str(world_size)  # the operator's way of asking whether all ranks are on this machine
    shm_operator.remove_name(rank)  # a killed predecessor's, should there be one
    dist.barrier()
    assert module is not None
    # This spins until every peer's buffer is there, and holds Python's lock: the barrier before keeps it short.
    module.initialize(world_size, rank)
    dist.barrier()  # else a fast rank could read a slow one's buffer before it is written
    probe = torch.full((64,), float(rank + 1))
    torch.ops.deepspeed.inference_all_reduce_(probe)
    shm_operator.remove_name(rank)
    wrong = bool((probe != world_size * (world_size + 1) / 2).any())
    reason = _first_reason("the shared-memory all-reduce gave a wrong sum" if wrong else "")
    if not reason:
        _operator = module
    return reason


def _use_operator(level: int) -> None:
    """DeepSpeed's backend asks this attribute which number formats the operator may sum; 0 means none, use gloo."""
    from deepspeed.comm import comm

    if comm.cdb is not None:
        comm.cdb.shm_vector_kernel_level = level


def _measure() -> tuple[float, float]:
    """Mean seconds of one all-reduce by gloo and by the operator, in turns, so that a burst of load hits both.

    With as much computing in between as a decode step has. Without it the operator's 25 rounds fit into one slice of
    the scheduler, and on a busy machine two ranks that happened to run side by side measured 11 microseconds.
    """
    tensor, weight = torch.zeros(4, _MEASURED_NUMBERS // 4), torch.zeros(_MEASURED_NUMBERS // 4, _MEASURED_NUMBERS // 4)
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: dist.all_reduce(tensor),
        lambda: torch.ops.deepspeed.inference_all_reduce_(tensor),
    )
    spent, calls = [0.0, 0.0], [0, 0]
    for turn in range(_TURNS):
        for kind, reduce in enumerate(kinds):
            dist.barrier()
            for _ in range(_ROUNDS):
                torch.mm(tensor, weight)
                started = time.perf_counter()
                reduce()
                if turn:  # the first warms up
                    spent[kind] += time.perf_counter() - started
                    calls[kind] += 1
        if _agreed((sum(spent), 0.0))[0] > _LONGEST:
            break
    return spent[0] / max(1, calls[0]), spent[1] / max(1, calls[1])


def _agreed(values: tuple[float, float]) -> tuple[float, float]:
    """Rank 0's numbers, on all ranks."""
    shared = torch.tensor(values, dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared[0]), float(shared[1])


def _first_reason(mine: str) -> str:
    """The first non-empty reason among the ranks, on all of them; empty when no rank has one."""
    reasons: list[Any] = [""] * dist.get_world_size()
    dist.all_gather_object(reasons, mine)
    return next((str(reason) for reason in reasons if reason), "")
