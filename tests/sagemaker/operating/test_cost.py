"""Arithmetic of money, against sums done by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bloomery.errors import ConfigurationError
from bloomery.sagemaker.operating.cost import Cost, Instances, Throughput, per_hour, read_throughput
from bloomery.sagemaker.operating.prices import Price


def instances(count: int, price: float | None) -> Instances:
    return Instances("ml.p4d.24xlarge", count, Price(price, "a test"))


def test_the_published_result_in_dollars() -> None:
    """BLOOM-176B on one p4d.24xlarge: 4 prompts × 256 tokens in 27.564 s, 37.1 tokens a second."""
    cost = Cost(per_hour([instances(1, 37.688)]), Throughput(4 / 27.564, 4 * 256 / 27.564))
    assert cost.per_hour == 37.688
    assert cost.per_month == pytest.approx(27512.24)
    # 37.688 / 3600 = 0.010469 a second; a request takes 6.891 s of it, a token 0.026918 s
    assert cost.per_thousand_requests == pytest.approx(72.14, rel=1e-3)
    assert cost.per_million_tokens == pytest.approx(281.80, rel=1e-3)


def test_several_instances_and_variants_add_up() -> None:
    assert per_hour([instances(2, 1.5), instances(3, 2.0)]) == 9.0
    assert per_hour([instances(2, 1.5), instances(1, None)]) is None
    assert per_hour([instances(2, 1.5), instances(0, None)]) == 3.0
    assert per_hour([]) == 0.0


def test_what_is_not_known_is_not_made_up() -> None:
    unknown = Cost(None, Throughput(1.0, 1.0))
    assert (unknown.per_month, unknown.per_thousand_requests, unknown.per_million_tokens) == (None, None, None)
    idle = Cost(1.0, Throughput(0.0, None))
    assert (idle.per_thousand_requests, idle.per_million_tokens) == (None, None)
    assert Cost(1.0).per_thousand_requests is None


def test_the_throughput_of_a_report(tmp_path: Path) -> None:
    report = tmp_path / "bench.json"
    report.write_text(json.dumps({"throughput": {"requests_per_s": 2, "output_tokens_per_s": 512.5}, "other": []}))
    assert read_throughput(report) == Throughput(2.0, 512.5)
    report.write_text(json.dumps({"throughput": {"requests_per_s": 2}}))
    assert read_throughput(report) == Throughput(2.0, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be read"),
        ("[]", 'has no "throughput"'),
        ('{"throughput": 3}', 'has no "throughput"'),
        (
            '{"throughput": {"requests_per_s": "many"}}',
            "throughput.requests_per_s is a number of 0 or more, not 'many'",
        ),
        ('{"throughput": {"output_tokens_per_s": -1}}', "output_tokens_per_s is a number of 0 or more, not -1"),
        ('{"throughput": {"output_tokens_per_s": NaN}}', "not nan"),
    ],
)
def test_a_report_that_is_none(tmp_path: Path, text: str, told: str) -> None:
    report = tmp_path / "bench.json"
    report.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        read_throughput(report)
