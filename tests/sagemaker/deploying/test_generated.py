"""The text in an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bloomery.errors import InvocationError
from bloomery.sagemaker.deploying.advice import advice
from bloomery.sagemaker.deploying.generated import pieces, text_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"generated_text": "a"}, "a"),
        ([{"generated_text": "a"}], "a"),
        ({"choices": [{"text": "a"}]}, "a"),
        ({"choices": [{"message": {"content": "a"}}]}, "a"),
        ([{"generated_text": "a"}, {"generated_text": "b"}], None),
        ([{"label": "POSITIVE"}], None),
        ("a", None),
        (None, None),
    ],
)
def test_of_a_whole_answer(value: Any, text: str | None) -> None:
    assert text_of(value) == text


def lines(*records: Any, prefix: str = "", end: str = "\n") -> str:
    return "".join(f"{prefix}{json.dumps(each)}{end}" for each in records)


@pytest.mark.parametrize(
    "stream",
    [
        lines({"outputs": ["to"]}, {"outputs": [" be"]}),
        lines({"token": {"text": "to"}}, {"token": {"text": " be"}, "generated_text": "to be"}),
        lines({"token": {"text": "to be"}}, {"token": {"text": "</s>", "special": True}}, {"generated_text": "to be"}),
        lines(
            {"choices": [{"delta": {"content": "to"}}]},
            {"choices": [{"delta": {"content": " be"}}]},
            prefix="data: ",
            end="\n\n",
        )
        + lines({"choices": [{"delta": {}}]}, {"choices": [], "usage": {}}, prefix="data: ", end="\n\n")
        + "data: [DONE]\n\n",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_of_a_stream_however_it_is_cut(stream: str, size: int) -> None:
    cut = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert "".join(pieces(cut)) == "to be"


@pytest.mark.parametrize("record", [{"error": "no memory", "code": 507}, {"error": {"message": "no memory"}}])
def test_a_stream_that_ends_in_an_error(record: dict[str, Any]) -> None:
    found = pieces([lines({"outputs": ["to"]}, record)])
    assert next(found) == "to"
    with pytest.raises(InvocationError, match="the generation broke off: no memory") as caught:
        next(found)
    assert caught.value.status == record.get("code")


@pytest.mark.parametrize(
    ("reason", "log", "words"),
    [
        ("did not pass the ping health check", (), "longer --startup-timeout"),
        ("did not pass the ping health check", ("torch.OutOfMemoryError: CUDA out of memory",), "does not fit"),
        ("did not pass the ping health check", ("OSError: [Errno 28] No space left on device",), "disk is full"),
        ("CannotStartContainerError. Please ensure", (), "docker run IMAGE serve"),
        ("Failed to download model data for container", (), "execution role may read it"),
        (
            "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity",
            (),
            "no such machine",
        ),
        ("The role 'x' is invalid. Please ensure that the role exists", (), "trust sagemaker.amazonaws.com"),
    ],
)
def test_advice(reason: str, log: tuple[str, ...], words: str) -> None:
    assert words in (advice(reason, log) or "")


def test_no_advice_without_a_reason_that_is_known() -> None:
    assert advice("Something else.", ("a line",)) is None
