"""What is to be measured: read from the command line's words, checked before anything is asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloomery.bench.endpoint import arrivals, statistics
from bloomery.bench.endpoint.answers import TokenCounter
from bloomery.bench.endpoint.goodput import Objective
from bloomery.bench.endpoint.load import Level
from bloomery.bench.endpoint.workload import Workload
from bloomery.errors import ConfigurationError

_TABLE_BATCH, _TABLE_CALLS = 4, 30  # prompts per request, as published; and requests
DEFAULT_SWEEP = "concurrency=1,2,4,8"
_PER_CONNECTION = 8  # requests, so that the beginning and the end of a level, when fewer are under way, weigh little
_SIZE = re.compile(r"(\d+(?:\.\d*)?)\s*([kKMGTP]?)(i?)(?:B(?:/s)?)?")
_POWERS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


@dataclass(frozen=True)
class Limit:
    """What the memory allows: each step of decoding reads all weights once, whatever the batch."""

    weights: float  # bytes
    bandwidth: float  # bytes per second, of all devices together

    def tokens_per_second(self, sequences: float) -> float:
        """With so many sequences under way, all in one batch."""
        return sequences * self.bandwidth / self.weights


@dataclass(frozen=True)
class Plan:
    """One measurement. ``warmup``: requests before each level, None for as many as are under way at once. ``table``:
    the published table's row; then there is one level."""

    name: str
    workload: Workload
    levels: tuple[Level, ...]
    table: bool = False
    warmup: int | None = None
    objectives: tuple[Objective, ...] = ()
    price_per_hour: float | None = None
    limit: Limit | None = None
    load_seconds: float | None = None
    counter: TokenCounter | None = None


def batch_size(wanted: int | None, *, table: bool) -> int:
    """Prompts per request."""
    return wanted or (_TABLE_BATCH if table else 1)


def table_level(requests: int | None, seconds: float | None = None) -> Level:
    """The published table's calls come one after the other."""
    return Level("concurrency", 1, requests or (None if seconds else _TABLE_CALLS), seconds)


def read_levels(
    *,
    sweep: str | None,
    rate: str | None,
    trace: Path | None,
    burstiness: float,
    requests: int | None,
    seconds: float | None,
) -> tuple[Level, ...]:
    """``--sweep``, ``--rate`` and ``--trace``, one after the other. Raises ConfigurationError."""
    if burstiness <= 0:
        raise ConfigurationError(f"--burstiness {burstiness:g}: it must be above 0; 1 is a Poisson process")
    levels: list[Level] = []
    if sweep or not (rate or trace):
        levels += [
            Level("concurrency", value, _number(requests, seconds, int(value)), seconds)
            for value in _values("--sweep", (sweep or DEFAULT_SWEEP).removeprefix("concurrency="), whole=True)
        ]
    if rate:
        for value in _values("--rate", rate, whole=False):
            levels.append(Level("rate", value, _number(requests, seconds, 1), seconds, burstiness))
    if trace:
        found = tuple(arrivals.read_trace(trace))
        mean = (len(found) - 1) / found[-1].at if found[-1].at else 0.0
        levels.append(Level("trace", round(mean, 4), requests, seconds, arrivals=found))
    return tuple(levels)


def _number(requests: int | None, seconds: float | None, under_way: int) -> int | None:
    """With neither given, enough for a percentile; with a time alone, as many as fit."""
    if requests is not None:
        return max(requests, under_way)
    return None if seconds is not None else max(statistics.ENOUGH, _PER_CONNECTION * under_way)


def _values(option: str, text: str, *, whole: bool) -> list[float]:
    convert: Callable[[str], float] = int if whole else float
    try:
        values = [convert(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value < 100_000 for value in values):
        example = "concurrency=1,2,4,8" if whole else "0.5,1,2"
        raise ConfigurationError(f"{option} {text}: {'whole ' if whole else ''}numbers above 0 are needed: {example}")
    return values


def read_limit(text: str) -> Limit:
    """``weights=352GB,bandwidth=12.4TB/s``. Raises ConfigurationError."""
    parts = dict(part.partition("=")[::2] for part in text.replace(" ", "").split(","))
    try:
        limit = Limit(_bytes(parts.pop("weights")), _bytes(parts.pop("bandwidth")))
        if parts or not limit.weights or not limit.bandwidth:
            raise ValueError
    except (KeyError, ValueError):
        raise ConfigurationError(
            f"--limit {text}: two sizes are needed, such as weights=352GB,bandwidth=12.4TB/s"
        ) from None
    return limit


def _bytes(text: str) -> float:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError
    return float(match[1]) * float((1024 if match[3] else 1000) ** _POWERS[match[2]])


def read_parameters(pairs: list[str]) -> dict[str, Any]:
    """``--parameter NAME=VALUE``: values are JSON where they can be, else text. Raises ConfigurationError."""
    import json

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise ConfigurationError(f"--parameter {pair}: NAME=VALUE is needed, such as ignore_eos=null")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def token_counter(place: str) -> TokenCounter:
    """Counts with a tokenizer.json, or with the one of a checkpoint's directory. Raises ConfigurationError."""
    path = Path(place)
    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigurationError("--tokenizer needs the package tokenizers: pip install tokenizers") from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise ConfigurationError(f"--tokenizer {place}: {path} cannot be read: {error}") from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
