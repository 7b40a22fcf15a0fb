"""The table has the published columns, and its numbers follow from the calls."""

from __future__ import annotations

import json

import pytest

from bloomery.bench.report import Call, Result, table


def _result(name: str, seconds: list[float], others: float = 0.0) -> Result:
    return Result(
        model="opt", configuration=name, dtype="fp32", tensor_parallel=2, tokens_per_call=256, load_seconds=1.5,
        baseline_bytes=[100 << 20], resident_bytes=[200 << 20], peak_bytes=[300 << 20, 310 << 20], same_tokens=1.0,
        allreduce="gloo (as configured)", calls=[Call(value, 0.1, others) for value in seconds],
    )  # fmt: skip


def test_tokens_per_second_are_the_batch_by_the_median_call() -> None:
    assert _result("a", [1.0, 2.0, 9.0]).tokens_per_second == pytest.approx(128)


def test_the_spread_is_relative_to_the_median() -> None:
    assert _result("a", [1.0, 2.0, 3.0]).spread == pytest.approx(1.0)


def test_the_table_compares_with_accelerate_in_the_same_run() -> None:
    rows = table([_result("accelerate", [4.0]), _result("deepspeed tp2 autotp", [2.0])]).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[0][:10] == [
        "model", "library", "dtype", "TP", "load s", "peak RssAnon MiB", "P50 ms", "P90 ms", "P99 ms", "tokens/s",
    ]  # fmt: skip
    assert cells[2][10] == "1.00"
    assert cells[3][1:11] == [
        "deepspeed tp2 autotp", "fp32", "2", "1.5", "300 + 310", "2000", "2000", "2000", "128.0", "2.00",
    ]  # fmt: skip


def test_without_the_baseline_there_is_no_comparison() -> None:
    assert "| -" in table([_result("deepspeed tp2 autotp", [2.0])]).splitlines()[2]


def test_json_holds_calls_and_what_follows_from_them() -> None:
    found = json.loads(json.dumps(_result("a", [1.0, 3.0], others=0.25).as_json()))
    assert found["p50_ms"] == 1000
    assert found["p99_ms"] == 3000
    assert found["others"] == 0.25
    assert [call["seconds"] for call in found["calls"]] == [1.0, 3.0]
