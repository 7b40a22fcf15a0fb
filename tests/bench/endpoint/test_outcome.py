from __future__ import annotations

import pytest

from bloomery.bench.endpoint.call import Call
from bloomery.bench.endpoint.goodput import good, read_objectives
from bloomery.bench.endpoint.load import Level
from bloomery.bench.endpoint.outcome import Outcome, cost
from bloomery.bench.endpoint.published import row
from bloomery.bench.endpoint.surroundings import Share
from bloomery.bench.endpoint.workload import Workload
from bloomery.errors import ConfigurationError

QUIET = Share(0.0, 0.0, True)


def call(due: float, first: float, done: float, steps: int = 11) -> Call:
    """Tokens at even gaps from ``first`` to ``done``, seconds after ``due``."""
    gap = (done - first) / (steps - 1)
    times = tuple(due + first + gap * index for index in range(steps))
    return Call(due, due, due + done, times, True, steps, steps, "endpoint", 5)


def failed(due: float, kind: str, reason: str) -> Call:
    return Call(due, due, due + 0.1, failure=kind, reason=reason)


CALLS = [
    call(0.0, 0.1, 1.1),  # TPOT 100 ms
    call(1.0, 0.3, 0.8),  # TPOT 50 ms
    call(2.0, 0.2, 0.7),
    failed(3.0, "HTTP 503", "busy"),
    failed(3.5, "HTTP 503", "still busy"),
    failed(3.9, "timeout", "no answer"),
]


def test_throughput_counts_what_succeeded_from_the_first_request_to_the_last_answer() -> None:
    told = Outcome(Level("concurrency", 1, 6), CALLS, QUIET).as_json()
    assert told["seconds"] == 4.0
    assert told["throughput"] == {"requests_per_s": 0.75, "output_tokens_per_s": 8.25}
    assert told["ttft_ms"]["p50"] == pytest.approx(200)
    assert told["tpot_ms"]["p99"] == pytest.approx(100)
    assert told["itl_ms"]["count"] == 30
    assert (told["requests"], told["succeeded"], told["prompt_tokens"]) == (6, 3, 15)


def test_errors_are_counted_by_kind_with_what_the_first_one_said() -> None:
    outcome = Outcome(Level("concurrency", 1, 6), CALLS, QUIET)
    assert outcome.errors == {
        "HTTP 503": {"count": 2, "first": "busy"},
        "timeout": {"count": 1, "first": "no answer"},
    }
    assert "3 of 6 requests failed (2 × HTTP 503, 1 × timeout)" in outcome.as_json()["warnings"][0]


def test_goodput_wants_every_objective_met() -> None:
    assert good(CALLS, read_objectives("ttft=250ms")) == 2
    assert good(CALLS, read_objectives("tpot=60ms")) == 2
    assert good(CALLS, read_objectives("ttft=250ms, tpot=60ms")) == 1
    assert good(CALLS, read_objectives("latency=0.75s")) == 1
    told = Outcome(Level("rate", 1, 6), CALLS, QUIET).as_json(read_objectives("ttft=250ms,tpot=60ms"))
    assert told["goodput"] == {
        "objectives": {"ttft": 250.0, "tpot": 60.0},
        "met": 1,
        "share": 0.1667,
        "requests_per_s": 0.25,
    }


def test_an_answer_that_was_not_streamed_meets_no_time_to_first_token() -> None:
    whole = Call(0.0, 0.0, 0.1, (0.1,), False, 5, 5, "endpoint")
    assert good([whole], read_objectives("ttft=1s")) == 0
    assert good([whole], read_objectives("latency=1s")) == 1


@pytest.mark.parametrize("text", ["ttft", "ttft=500", "speed=5ms", "ttft=-1s"])
def test_wrong_objectives_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match="ttft=500ms,tpot=50ms"):
        read_objectives(text)


def test_few_answers_and_busy_machines_are_warned_of() -> None:
    outcome = Outcome(Level("concurrency", 1, 3), CALLS[:3], Share(0.5, 0.95, True))
    warnings = " ".join(outcome.as_json()["warnings"])
    for words in ("fewer than 30", "Other processes", "The client used"):
        assert words in warnings
    enough = Outcome(Level("concurrency", 1, 30), [call(index, 0.1, 0.2) for index in range(40)], QUIET)
    assert enough.as_json()["warnings"] == ["P99 has no upper bound with 40 answers; it takes 368."]


def test_cost_by_hand() -> None:
    # 32.77 an hour at 37.1 tokens/s: BLOOM-176B on p4d in the published table.
    told = cost(32.77, {"requests_per_s": 0.0362, "output_tokens_per_s": 37.1})
    assert told["per_million_output_tokens"] == pytest.approx(245.36, abs=0.01)
    assert told["per_thousand_requests"] == pytest.approx(251.46, abs=0.01)


def test_the_published_row_reckons_tokens_by_the_median_call() -> None:
    calls = [Call(0, 0, seconds, (seconds,), False, 256, 1024, "endpoint") for seconds in (27.0, 27.564, 32.179)]
    told = row("BLOOM-176B", Workload(batch=4, max_new_tokens=256), calls, 74.9, "--load-seconds")
    assert told["tokens_per_s"] == pytest.approx(37.15, abs=0.01)
    assert (told["latency_ms"]["p50"], told["latency_ms"]["p99"]) == (27564.0, 32179.0)
    assert told["warnings"] == []


def test_answers_of_another_length_are_warned_of() -> None:
    calls = [Call(0, 0, 1.0, (1.0,), False, 9, 36, "endpoint")]
    told = row("m", Workload(batch=4, max_new_tokens=256), calls, None, "unknown")
    assert "36 to 36 tokens instead of 1024" in told["warnings"][0]
