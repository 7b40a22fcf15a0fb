"""Whether a difference is more than the number format explains.

At a position the endpoint chose token s, and the reference prefers token b; gap = log p(b) - log p(s) >= 0 in fp32.
Rounding turns the order of b and s around only if it moves the difference of their logits by more than the gap. How
far a format moves such differences depends on the model, and is measured: the reference itself is run in that format
on the same tokens, and ``swing`` is the largest change of a difference among the ten likeliest tokens of any position.
An endpoint rounds the same numbers in another order (other kernels), so its errors are another draw from the same
distribution, or from one half as wide again where sums over shards are rounded once more. The largest of hundreds of
draws is about three standard deviations; ``SAFETY`` times that is six of the wider distribution.

    explained:  gap <= SAFETY x swing          and          |log p served - log p reference| <= SAFETY x noise

with ``noise`` the largest change of one log-probability. The worst case that can be proved (Higham, Accuracy and
Stability of Numerical Algorithms, section 3.1: n·u/(1 - n·u) of the sum of absolute products) grows with every layer
and excludes nothing; but it says that all of this is in proportion to the unit roundoff u, which gives the floor below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bloomery.bench.verifying.served import Served

SAFETY = 3.0
# Half the distance between 1 and the next number; of int8 that of fp32, in which such a model computes.
UNIT_ROUNDOFF = {"fp16": 2.0**-11, "bf16": 2.0**-8, "fp32": 2.0**-24, "int8": 2.0**-24}
# Log-probabilities of about 10 are themselves rounded, and sent as text: a model whose noise happens to be nil on few
# tokens must not fail for that.
_MAGNITUDE = 32


@dataclass(frozen=True)
class Bounds:
    """What ``dtype`` explains of the gap between two tokens, and of one log-probability (natural logarithms)."""

    dtype: str
    gap: float
    log_prob: float

    @classmethod
    def of(cls, dtype: str, rows: Sequence[Mapping[str, Any]]) -> Bounds:
        """From the reference's rows."""
        floor = _MAGNITUDE * UNIT_ROUNDOFF[dtype]
        swing = max((row["swing"] for row in rows), default=0.0)
        noise = max((row["noise"] for row in rows), default=0.0)
        return cls(dtype, SAFETY * max(swing, floor), SAFETY * max(noise, floor))


@dataclass(frozen=True)
class Divergence:
    """Where endpoint and reference part: at new token ``position``, from 0."""

    position: int
    served: int
    served_text: str
    best: int
    best_text: str
    gap: float
    explained: bool


@dataclass(frozen=True)
class Verdict:
    """Of one prompt. ``largest_gap``: over all positions; ``log_prob_error``: None where the endpoint tells none."""

    prompt: str
    tokens: int
    same: int
    by_text: bool
    first: Divergence | None
    largest_gap: float
    log_prob_error: float | None
    log_prob_position: int | None
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the format explains everything."""
        return not self.failures


def judge(served: Served, row: Mapping[str, Any], bounds: Bounds) -> Verdict:
    """``row``: what the reference found about ``served``."""
    positions = row["positions"]
    parted = [index for index, each in enumerate(positions) if each["served"] != each["best"]]
    first = None
    if parted:
        at = positions[parted[0]]
        first = Divergence(
            parted[0], at["served"], at["served_text"], at["best"], at["best_text"], at["gap"], at["gap"] <= bounds.gap
        )
    largest = max((each["gap"] for each in positions), default=0.0)
    error, where = _log_prob_error(served, positions)
    failures = []
    if row["unknown_text"] is not None:
        failures.append(f"no token of the reference fits: {row['unknown_text']!r}")
    elif not positions:
        failures.append("the answer is empty")
    worst = next((index for index, each in enumerate(positions) if not each["gap"] <= bounds.gap), None)
    if worst is not None:  # also of a gap that is no number
        at = positions[worst]
        failures.append(
            f"token {worst}: {at['served_text']!r} where the reference prefers {at['best_text']!r} by {at['gap']:.3g}, "
            f"and {bounds.dtype} explains {bounds.gap:.3g}"
        )
    if error is not None and not error <= bounds.log_prob:
        failures.append(
            f"token {where}: its log-probability is off by {error:.3g}, "
            f"and {bounds.dtype} explains {bounds.log_prob:.3g}"
        )
    return Verdict(
        served.prompt,
        len(positions),
        len(positions) - len(parted),
        served.ids is None,
        first,
        largest,
        error,
        where,
        tuple(failures),
    )


def _log_prob_error(served: Served, positions: Sequence[Mapping[str, Any]]) -> tuple[float | None, int | None]:
    errors = [
        (abs(told - each["log_prob"]), index)
        for index, (told, each) in enumerate(zip(served.log_probs or (), positions, strict=False))
        if told is not None
    ]
    if not errors:
        return None, None
    # NaN compares with nothing: it must win.
    return max(errors, key=lambda pair: (pair[0] != pair[0], pair[0]))
