from __future__ import annotations

import json

import pytest

from bloomery.errors import BloomeryError, CheckpointError
from djl_python.failures import describe, failure_output, is_out_of_memory, report_failure


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


class OwnOutOfMemoryError(OutOfMemoryError):
    """Derived from it."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("x"),
        OwnOutOfMemoryError("x"),
        RuntimeError("CUDA error: out of memory"),
        ValueError("No available memory for the cache blocks. Try increasing"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_memory_exhaustion_is_known_by_type_or_text(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_other_errors_are_not_memory_exhaustion() -> None:
    assert not is_out_of_memory(RuntimeError("memory of an elephant"))


def test_an_ordinary_failure_is_424() -> None:
    assert failure_output(ValueError("v")).code == 424


def test_a_507_has_one_line_of_reason_and_a_body_with_figures_and_advice() -> None:
    output = failure_output(MemoryError("first\nsecond"))
    assert (output.code, output.message) == (507, "first")
    error = json.loads(bytes(output.content.value_at(0)))["error"]
    assert error.startswith("first\nsecond\n")
    assert "this worker holds" in error
    assert "smaller max_new_tokens" in error


def test_an_endless_reason_is_cut() -> None:
    assert len(failure_output(MemoryError("x" * 10_000)).message) == 200


def test_an_error_without_text_is_its_type() -> None:
    assert describe(ValueError()) == "ValueError"


def test_a_syntax_error_begins_with_what_is_wrong_as_every_error_does() -> None:
    with pytest.raises(SyntaxError) as caught:
        compile("def handle(inputs)\n", "model.py", "exec")
    first, *rest = describe(caught.value, with_frames=True).splitlines()
    assert first == "SyntaxError: expected ':' (model.py, line 1)"
    assert "def handle(inputs)" in "".join(rest)


def raised(error: Exception, cause: Exception) -> Exception:
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def test_an_error_of_ours_is_told_without_frames(capsys: pytest.CaptureFixture[str]) -> None:
    error = raised(CheckpointError("the file is damaged"), OSError("short read"))
    report_failure(error)
    told = "bloomery.errors.CheckpointError: the file is damaged\ncaused by OSError: short read"
    assert capsys.readouterr().err == f"{told}\n"
    assert describe(error, with_frames=True) == told


def test_any_other_error_is_told_with_its_frames(capsys: pytest.CaptureFixture[str]) -> None:
    error = raised(ValueError("no"), BloomeryError("ours"))
    report_failure(error)
    assert "in raised" in capsys.readouterr().err
    assert "in raised" in describe(error, with_frames=True)
