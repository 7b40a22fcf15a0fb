from __future__ import annotations

from typing import Any

import pytest

from bloomery.bench.verifying.judging import SAFETY, UNIT_ROUNDOFF, Bounds, judge
from bloomery.bench.verifying.served import Served


def position(gap: float = 0.0, log_prob: float = -1.0) -> dict[str, Any]:
    best = 7 if gap else 5
    told = {"served": 5, "served_text": " a", "best": best, "best_text": " the"}
    return told | {"gap": gap, "log_prob": log_prob}


def row(*positions: dict[str, Any], unknown: str | None = None) -> dict[str, Any]:
    return {"positions": list(positions), "noise": 0.01, "swing": 0.02, "unknown_text": unknown}


def served(*log_probs: float) -> Served:
    return Served("p", " a", (5,) * len(log_probs), log_probs)


BOUNDS = Bounds("bf16", gap=0.08, log_prob=0.04)


def test_bounds_are_in_proportion_to_what_the_format_changed_in_the_reference() -> None:
    found = Bounds.of("fp32", [row(), {"swing": 0.5, "noise": 0.001}])
    assert (found.gap, found.log_prob) == (SAFETY * 0.5, SAFETY * 0.01)


def test_bounds_never_fall_below_the_formats_own_roundoff() -> None:
    found = Bounds.of("bf16", [{"swing": 0.0, "noise": 0.0}])
    assert found.gap == found.log_prob == pytest.approx(SAFETY * 32 * UNIT_ROUNDOFF["bf16"])


def test_the_same_tokens_pass() -> None:
    verdict = judge(served(-1.0, -1.01), row(position(), position()), BOUNDS)
    assert (verdict.passed, verdict.tokens, verdict.same, verdict.first) == (True, 2, 2, None)
    assert verdict.log_prob_error == pytest.approx(0.01)
    assert verdict.log_prob_position == 1


def test_a_close_call_is_explained() -> None:
    verdict = judge(served(-1.0, -1.0), row(position(), position(gap=0.07)), BOUNDS)
    assert verdict.passed
    assert verdict.first is not None
    assert (verdict.first.position, verdict.first.explained, verdict.first.best_text) == (1, True, " the")


def test_a_clear_preference_of_the_reference_is_not() -> None:
    verdict = judge(served(-1.0, -1.0, -1.0), row(position(gap=0.07), position(), position(gap=0.5)), BOUNDS)
    assert not verdict.passed
    assert verdict.first is not None
    assert verdict.first.position == 0
    assert "token 2: ' a' where the reference prefers ' the' by 0.5, and bf16 explains 0.08" in verdict.failures[0]


def test_a_log_probability_may_fail_though_the_tokens_are_the_same() -> None:
    verdict = judge(served(-1.0, -1.3), row(position(), position()), BOUNDS)
    assert verdict.failures == ("token 1: its log-probability is off by 0.3, and bf16 explains 0.04",)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_fails(bad: float) -> None:
    assert not judge(served(-1.0, bad, -1.0), row(position(), position(), position()), BOUNDS).passed
    assert not judge(served(-1.0), row(position(gap=bad)), BOUNDS).passed


def test_text_that_no_token_explains_fails_and_so_does_an_empty_answer() -> None:
    assert (
        "no token of the reference fits: 'xyz'" in judge(served(-1.0), row(position(), unknown="xyz"), BOUNDS).failures
    )
    assert judge(served(), row(), BOUNDS).failures == ("the answer is empty",)
