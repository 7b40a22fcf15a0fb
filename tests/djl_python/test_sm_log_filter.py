from __future__ import annotations

import logging

import pytest

from djl_python import __version__
from djl_python.sm_log_filter import SMLogFilter


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("name", logging.INFO, "path", 1, message, None, None)


def test_a_telemetry_record_passes_in_its_agents_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SMLogFilter, "counter", type(SMLogFilter.counter)())
    messages = [SMLogFilter().filter(record("ModelServerError: some metric: 3 count")) for _ in range(2)]
    assert [message.getMessage() for message in messages if isinstance(message, logging.LogRecord)] == [
        f"ModelServerError.Count:{number}|#DJLServing:{__version__},SomeMetric:3 count" for number in (1, 2)
    ]


@pytest.mark.parametrize("message", ["something else", "ModelServerError: no metric", "SysHealth: a: b", ""])
def test_other_records_do_not_pass(message: str) -> None:
    assert SMLogFilter().filter(record(message)) is False
