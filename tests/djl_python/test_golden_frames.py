"""The real worker process answers DJLServing's recorded requests with DJLServing's recorded bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.worker_client import Answer, WorkerProcess, running_worker

from bloomery.protocol.frames import Dialect

DATA = Path(__file__).parents[1] / "data"
GOLDEN = {key: value for key, value in json.loads((DATA / "golden_frames.json").read_text()).items() if key != "source"}
DIALECTS = {"h": Dialect.INT16, "i": Dialect.INT32}
# What bloomery answers differently on purpose.
FROZEN_MESSAGE = "0.36 says 'invoke handler failure'; clients compare the message, so it stays what 0.19 to 0.30 said"
DIFFERENCES = {
    "raise_oom": "DJLServing sends the 507 without a body; ours says how much memory there is and what helps",
    "missing_handler": "DJLServing shows Python's AttributeError; ours names the file and the functions it has",
}
SAME = [case["name"] for case in GOLDEN["0.27.0"]["cases"] if case["name"] not in DIFFERENCES]


@pytest.fixture(scope="module", params=list(GOLDEN))
def worker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker that speaks the dialect of one DJLServing version."""
    directory = tmp_path_factory.mktemp("golden")
    (directory / "model").mkdir()
    shutil.copy(DATA / "golden_handler.py", directory / "model" / "model.py")
    with running_worker(directory / "model", directory, dialect=DIALECTS[GOLDEN[request.param]["strlen"]]) as running:
        running.version = request.param  # type: ignore[attr-defined]
        yield running


def replay(worker: WorkerProcess, case: dict[str, Any]) -> Answer:
    """Send the recorded bytes; the answer's bytes are in ``worker.received``."""
    worker.socket.sendall(bytes.fromhex(case["request_hex"]))
    return worker.read_answer()


def recorded(worker: WorkerProcess, name: str) -> dict[str, Any]:
    """One recorded case of the worker's version."""
    version = worker.version  # type: ignore[attr-defined]
    return next(case for case in GOLDEN[version]["cases"] if case["name"] == name)


@pytest.mark.parametrize("name", SAME)
def test_answers_the_recorded_bytes(worker: WorkerProcess, name: str) -> None:
    case = recorded(worker, name)
    answer = replay(worker, case)
    expected = bytes.fromhex(case["response_hex"])
    if case["message"] == "invoke handler failure":  # FROZEN_MESSAGE
        assert answer.head.message == "prediction failure", FROZEN_MESSAGE
        assert json.loads(answer.body)["error"] == error_of(case)
    else:
        assert worker.received == expected


def error_of(case: dict[str, Any]) -> str:
    """The error text that DJLServing put into its body."""
    tail = bytes.fromhex(case["response_hex"])
    return str(json.loads(tail[tail.index(b"{") :])["error"])


def test_memory_exhaustion_keeps_the_recorded_status_and_adds_a_body(worker: WorkerProcess) -> None:
    case = recorded(worker, "raise_oom")
    answer = replay(worker, case)
    assert (answer.head.code, answer.head.message) == (case["code"], case["message"]) == (507, "no mem")
    body = json.loads(answer.body)
    assert body["code"] == 507
    assert "MiB of host memory are available" in body["error"], DIFFERENCES["raise_oom"]


def test_a_missing_function_keeps_the_recorded_status_and_names_what_there_is(worker: WorkerProcess) -> None:
    case = recorded(worker, "missing_handler")
    answer = replay(worker, case)
    assert answer.head.code == case["code"] == 424
    error = json.loads(answer.body)["error"]
    assert "no function 'nope'" in error, DIFFERENCES["missing_handler"]
    assert "handle, other" in error
