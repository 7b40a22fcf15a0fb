from __future__ import annotations

import json
from typing import Any

import pytest

from bloomery.bench.verifying.served import Served, read_answer
from bloomery.errors import BenchmarkError

TOKENS = [{"id": 5, "text": " a", "log_prob": -1.5}, {"id": 2, "text": "", "log_prob": None}]


@pytest.mark.parametrize(
    "answer",
    [
        {"generated_text": " a", "details": {"finish_reason": "eos_token", "tokens": TOKENS}},
        [{"generated_text": "To be a", "details": {"finish_reason": "eos_token", "tokens": TOKENS}}],
        [[{"generated_text": " a", "details": {"finish_reason": "eos_token", "tokens": TOKENS}}]],
        {
            "generated_text": " a",
            "details": {
                "finish_reason": "eos_token",
                "tokens": [{"id": [each["id"]], "logprob": each["log_prob"]} for each in TOKENS],
            },
        },
    ],
)
def test_tokens_of_every_dialect(answer: Any) -> None:
    expected = Served("To be", " a", (5, 2), (-1.5, None), ended=True)
    assert read_answer("To be", json.dumps(answer).encode()) == expected


def test_text_alone() -> None:
    assert read_answer("To be", b"To be or not") == Served("To be", " or not")
    assert read_answer("To be", b'{"generated_text": " or"}') == Served("To be", " or")
    completion = {"choices": [{"text": " or", "finish_reason": "stop"}]}
    assert read_answer("To be", json.dumps(completion).encode()) == Served("To be", " or", ended=True)


def test_what_is_no_answer_is_refused_with_its_begin() -> None:
    with pytest.raises(BenchmarkError, match=r"no known form.*predictions"):
        read_answer("To be", b'{"predictions": []}')
