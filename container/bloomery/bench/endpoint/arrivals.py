"""When requests arrive in an open loop: independent of whether earlier ones have been answered.

Gaps are drawn from a gamma distribution of mean 1/rate whose shape is ``burstiness``: 1 is a Poisson process (gaps are
exponential), less comes in bursts, more is steadier; the coefficient of variation of the gaps is 1/√burstiness. This
is the meaning that ``vllm bench serve --burstiness`` gave the word.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloomery.errors import ConfigurationError

MAX_ARRIVALS = 1_000_000
EXAMPLE = '{"at": 0.25, "prompt": "To be", "max_new_tokens": 64}'


@dataclass(frozen=True)
class Arrival:
    """One request of a schedule: ``at`` seconds after its begin. None: as the workload says."""

    at: float
    prompt: str | None = None
    prompt_words: int | None = None
    max_new_tokens: int | None = None


def gamma(rate: float, burstiness: float, seed: int) -> Iterator[Arrival]:
    """Without end. ``rate``: requests per second; the first one comes after the first gap."""
    numbers, now = random.Random(seed), 0.0
    while True:
        now += numbers.gammavariate(burstiness, 1 / (rate * burstiness))
        yield Arrival(now)


def read_trace(path: Path) -> list[Arrival]:
    """A recorded schedule, in order of time, beginning at 0.

    JSON lines: ``{"at": seconds}``, or ``{"timestamp": milliseconds}`` as in Mooncake's traces; with ``prompt`` or
    ``input_length`` and ``max_new_tokens`` or ``output_length`` where they are known. CSV: with the columns Timestamp
    (seconds), Request tokens and Response tokens, as in BurstGPT. Raises ConfigurationError with the line.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--trace {path}: it cannot be read: {error}") from error
    rows = _csv(text) if path.suffix == ".csv" else _json_lines(text, path)
    arrivals = sorted((_arrival(row, path, line) for line, row in rows), key=lambda each: each.at)
    if not arrivals:
        raise ConfigurationError(f"--trace {path}: it has no requests; a line is such as {EXAMPLE}")
    if len(arrivals) > MAX_ARRIVALS:
        raise ConfigurationError(f"--trace {path}: {len(arrivals)} requests are more than {MAX_ARRIVALS}")
    begin = arrivals[0].at
    return [Arrival(each.at - begin, each.prompt, each.prompt_words, each.max_new_tokens) for each in arrivals]


def _csv(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, row in enumerate(csv.DictReader(text.splitlines()), 2):
        yield (
            line,
            {
                "at": row.get("Timestamp"),
                "input_length": row.get("Request tokens"),
                "output_length": row.get("Response tokens"),
            },
        )


def _json_lines(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.splitlines(), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except ValueError as error:
            raise ConfigurationError(f"--trace {path}, line {line}: no JSON ({error}); such as {EXAMPLE}") from error
        if not isinstance(row, dict):
            raise ConfigurationError(f"--trace {path}, line {line}: no object; such as {EXAMPLE}")
        yield line, row


def _arrival(row: dict[str, Any], path: Path, line: int) -> Arrival:
    try:
        at = float(row["at"]) if row.get("at") is not None else float(row["timestamp"]) / 1000
        words, new = row.get("input_length"), row.get("max_new_tokens", row.get("output_length"))
        prompt = row.get("prompt")
        found = Arrival(
            at,
            None if prompt is None else str(prompt),
            None if words is None else max(1, int(words)),
            None if new is None else max(1, int(new)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"--trace {path}, line {line}: {row} does not say when ({type(error).__name__}: {error}); such as {EXAMPLE}"
        ) from error
    if not 0 <= found.at < float("inf"):
        raise ConfigurationError(f"--trace {path}, line {line}: at {found.at} is no time")
    return found
