from __future__ import annotations

import itertools
from pathlib import Path
from statistics import mean, pstdev

import pytest

from bloomery.bench.endpoint import arrivals
from bloomery.bench.endpoint.arrivals import Arrival
from bloomery.errors import ConfigurationError


@pytest.mark.parametrize(("burstiness", "variation"), [(1.0, 1.0), (0.25, 2.0), (4.0, 0.5)])
def test_gaps_have_the_mean_of_the_rate_and_the_variation_of_the_burstiness(
    burstiness: float, variation: float
) -> None:
    times = [each.at for each in itertools.islice(arrivals.gamma(5.0, burstiness, seed=3), 20_000)]
    gaps = [b - a for a, b in itertools.pairwise([0.0, *times])]
    assert mean(gaps) == pytest.approx(0.2, rel=0.05)
    assert pstdev(gaps) / mean(gaps) == pytest.approx(variation, rel=0.05)


def test_poisson_arrivals_per_second_have_their_mean_as_variance() -> None:
    times = [each.at for each in itertools.takewhile(lambda each: each.at < 4000, arrivals.gamma(3.0, 1.0, seed=8))]
    counts = [0] * 4000
    for at in times:
        counts[int(at)] += 1
    assert pstdev(counts) ** 2 / mean(counts) == pytest.approx(1.0, rel=0.1)


def test_the_same_seed_gives_the_same_schedule() -> None:
    def first(seed: int) -> list[Arrival]:
        return list(itertools.islice(arrivals.gamma(2.0, 1.0, seed), 10))

    assert first(1) == first(1) != first(2)


def test_a_trace_begins_at_zero_and_is_in_order(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"at": 7.5, "max_new_tokens": 3}\n\n{"at": 7, "prompt": "To be"}\n')
    assert arrivals.read_trace(trace) == [Arrival(0.0, "To be"), Arrival(0.5, max_new_tokens=3)]


def test_traces_of_mooncake_count_milliseconds(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 12, "output_length": 5}\n{"timestamp": 250}\n')
    assert arrivals.read_trace(trace) == [Arrival(0.0, None, 12, 5), Arrival(0.25)]


def test_traces_of_burstgpt_are_csv(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,472,18\n45,ChatGPT,108,230\n")
    assert arrivals.read_trace(trace) == [Arrival(0.0, None, 472, 18), Arrival(40.0, None, 108, 230)]


@pytest.mark.parametrize("content", ["", "nonsense\n", '{"when": 1}\n', '{"at": -1}\n', "[1]\n"])
def test_what_is_no_trace_is_refused_with_an_example(tmp_path: Path, content: str) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(content)
    with pytest.raises(ConfigurationError, match=r"--trace .*such as \{\"at\"|is no time"):
        arrivals.read_trace(trace)
