from __future__ import annotations

from pathlib import Path

from tests.support.worker_models import settings

from bloomery.errors import WorkerError
from bloomery.sagemaker.deploying.advice import advice, reported
from bloomery.sagemaker.deploying.watching import ENDPOINT, failed
from bloomery.workers.report import load_report

REASON = "The primary container for production variant AllTraffic did not pass the ping health check."


def log_of(tmp_path: Path, reason: str) -> tuple[str, ...]:
    """The lines that our server leaves of a load that fails so."""
    report = load_report(settings(tmp_path, ranks=2), 0, WorkerError(reason))
    return ("before", *report.splitlines(), "after")


def test_the_servers_own_report_is_quoted(tmp_path: Path) -> None:
    told = str(failed("e", REASON, log_of(tmp_path, "ValueError: no such layer: h.7\nof 6"), ENDPOINT))
    assert told.splitlines() == [
        f"endpoint e failed: {REASON}",
        "the container says: ValueError: no such layer: h.7 of 6",
        "what to do: correct the handler or the setting that the message names, and start again",
    ]


def test_what_is_known_of_sagemaker_comes_before_the_report(tmp_path: Path) -> None:
    found = advice(REASON, log_of(tmp_path, "ModuleNotFoundError: No module named 'peft'"))
    assert found is not None
    assert "add it to requirements.txt in the archive" in found


def test_another_servers_log_has_no_report() -> None:
    assert reported(["what: not ours", "Traceback"], "what") is None
    assert "the log says why" in str(advice(REASON, ["Traceback"]))
