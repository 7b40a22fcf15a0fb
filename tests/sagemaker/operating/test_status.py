"""One look at an endpoint, in each state that it can be in."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.sagemaker.operating.conftest import endpoint, in_status
from tests.support.emulator import until

from bloomery.sagemaker.operating.removal import remove
from bloomery.sagemaker.operating.status import look
from bloomery.sagemaker.session import Session


def now() -> datetime:
    return datetime.now(UTC)


def test_in_service_with_its_last_lines_and_metrics(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name)
    for do in ({"sleep": 0.05}, {"status": 400}, {"status": 500}):
        try:
            session.runtime.invoke_endpoint(EndpointName=name, Body=json.dumps({"do": do}))["Body"].read()
        except session.runtime.exceptions.ModelError:
            continue
    # The emulator hands metrics on every five seconds.
    until(lambda: look(session, name, now()).metrics[0].invocations == 3, "the metrics", 30)
    found = look(session, name, now())
    (measured,) = found.metrics
    assert (measured.what, measured.client_errors, measured.server_errors) == ("V", 1, 1)
    assert measured.latency.mean is not None
    assert measured.latency.most is not None
    assert 0 < measured.latency.mean <= measured.latency.most < 30
    assert measured.latency.most >= 0.05
    assert [line.text for line in found.lines] == [
        "started with serve",
        'asked to {"sleep": 0.05}',
        'asked to {"status": 400}',
        'asked to {"status": 500}',
    ]
    assert (found.endpoint.status, found.phase, found.notes) == ("InService", "", ())
    assert timedelta() <= found.elapsed < timedelta(minutes=5)
    remove(session, name)


def test_creating_says_what_is_going_on(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name, environment={"SLOW_START": "300"}, wait=False)
    until(lambda: look(session, name, now()).phase == "the container is starting", "the container's first line")
    found = look(session, name, now())
    assert (found.endpoint.status, found.metrics) == ("Creating", ())
    remove(session, name)


def test_failed_with_the_reason_and_the_logs_end(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name, environment={"DIE_AT_START": "3"}, wait=False)
    in_status(sagemaker, name, "Failed")
    until(lambda: any(line.text == "cannot find the weights" for line in look(session, name, now()).lines), "the log")
    found = look(session, name, now())
    assert found.endpoint.failure is not None
    assert "did not pass the ping health check" in found.endpoint.failure
    remove(session, name)
