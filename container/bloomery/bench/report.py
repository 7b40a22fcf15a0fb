"""Results as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bloomery.bench.configurations import BASELINE
from bloomery.bench.measure import percentile
from bloomery.bench.tables import markdown

_MIB = 2**20


@dataclass(frozen=True)
class Call:
    """One measured call. ``others``: the part of all cores' time that other processes took meanwhile, 0 to 1."""

    seconds: float
    first_token_seconds: float
    others: float


@dataclass(frozen=True)
class Result:
    """One model served one way. Memory is RssAnon per rank."""

    model: str
    configuration: str
    dtype: str
    tensor_parallel: int
    tokens_per_call: int
    load_seconds: float
    baseline_bytes: Sequence[int]
    resident_bytes: Sequence[int]
    peak_bytes: Sequence[int]
    same_tokens: float  # share of the tokens equal to the baseline's for the same prompts
    allreduce: str
    calls: Sequence[Call]

    def latency_ms(self, percent: float) -> float:
        """Of the whole call."""
        return 1000 * percentile([call.seconds for call in self.calls], percent)

    @property
    def tokens_per_second(self) -> float:
        """As the published table counts: the batch's new tokens by the median call."""
        return self.tokens_per_call / (self.latency_ms(50) / 1000)

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median."""
        seconds = [call.seconds for call in self.calls]
        return (max(seconds) - min(seconds)) / percentile(seconds, 50)

    @property
    def others(self) -> float:
        """Mean share of the cores that others took during the calls."""
        return sum(call.others for call in self.calls) / len(self.calls)

    def as_json(self) -> dict[str, Any]:
        """Everything measured and derived."""
        derived = {f"p{percent}_ms": self.latency_ms(percent) for percent in (50, 90, 99)}
        derived |= {"tokens_per_second": self.tokens_per_second, "spread": self.spread, "others": self.others}
        return asdict(self) | derived


_COLUMNS = (
    "model", "library", "dtype", "TP", "load s", "peak RssAnon MiB", "P50 ms", "P90 ms", "P99 ms", "tokens/s",
    "x accelerate", "spread", "others' CPU", "same tokens", "all-reduce",
)  # fmt: skip


def table(results: Sequence[Result]) -> str:
    """Markdown, in the order of the published table's columns."""
    return markdown(_COLUMNS, [_row(result, results) for result in results])


def _row(result: Result, results: Sequence[Result]) -> tuple[str, ...]:
    baseline = next((r for r in results if r.model == result.model and r.configuration == BASELINE), None)
    gain = f"{result.tokens_per_second / baseline.tokens_per_second:.2f}" if baseline else "-"
    return (
        result.model,
        result.configuration,
        result.dtype,
        str(result.tensor_parallel),
        f"{result.load_seconds:.1f}",
        " + ".join(f"{value / _MIB:.0f}" for value in result.peak_bytes),
        *(f"{result.latency_ms(percent):.0f}" for percent in (50, 90, 99)),
        f"{result.tokens_per_second:.1f}",
        gain,
        f"{result.spread:.0%}",
        f"{result.others:.0%}",
        f"{result.same_tokens:.0%}",
        result.allreduce,
    )
