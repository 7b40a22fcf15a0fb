"""Answers that get lost on their way: whether something was made is then looked up, not guessed."""

from __future__ import annotations

import http.client
import http.server
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.sagemaker.deploying.conftest import left
from tests.support.emulator import REGION, Emulator

from bloomery.errors import SageMakerError
from bloomery.sagemaker import Deployment, Endpoint, Session, prepare
from bloomery.sagemaker.deploying.launching import launch
from bloomery.sagemaker.request import Request


@dataclass
class Line:
    """Between client and emulator. By operation: how many answers (``lost``), or requests (``cut``), never arrive."""

    url: str = ""
    lost: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)


def _handler(line: Line, emulator: Emulator) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if line.cut.get(operation, 0) > 0:
                line.cut[operation] -= 1
                self.close_connection = True
                return
            inner = http.client.HTTPConnection(urlsplit(emulator.url).netloc, timeout=60)
            try:
                inner.request(self.command, self.path, body, dict(self.headers))
                answer = inner.getresponse()
                content = answer.read()
            finally:
                inner.close()
            if line.lost.get(operation, 0) > 0:
                line.lost[operation] -= 1
                self.close_connection = True
                return
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST  # noqa: N815 (http.server's own spelling)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    return Handler


@pytest.fixture
def line(emulator: Emulator, session: Session) -> Iterator[Line]:
    """``session`` has made the bucket."""
    made = Line()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(made, emulator)) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def over(line: Line, monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> Iterator[Session]:
    monkeypatch.setattr("bloomery.sagemaker.session._ATTEMPTS", 2)
    environment = {"AWS_ENDPOINT_URL_S3": emulator.url}
    with Session.open("local", endpoint_url=line.url, region=REGION, environment=environment) as opened:
        yield opened


@pytest.mark.parametrize("operation", ["CreateModel", "CreateEndpoint"])
def test_what_boto3s_second_attempt_finds_was_made_by_the_first(
    line: Line, over: Session, wanted: Deployment, operation: str
) -> None:
    """Else the endpoint would cost money, without a configuration, while the user reads that it could not be made."""
    line.lost[operation] = 1
    with Endpoint.deploy(wanted, over) as endpoint:
        assert endpoint.status() == "InService"
    assert left(over, wanted.name) == []


def test_no_answer_at_all_is_looked_into(line: Line, over: Session, wanted: Deployment) -> None:
    line.lost["CreateEndpoint"] = 2
    with Endpoint.deploy(wanted, over) as endpoint:
        assert endpoint.status() == "InService"


def test_what_was_not_made_is_refused_as_ever(line: Line, over: Session, wanted: Deployment) -> None:
    line.cut["CreateEndpoint"] = 2
    with pytest.raises(SageMakerError, match="sagemaker CreateEndpoint"):
        Endpoint.deploy(wanted, over)
    assert left(over, wanted.name) == []


def test_what_nobody_can_tell_is_said(line: Line, over: Session, wanted: Deployment) -> None:
    prepared = prepare(over, wanted)
    line.lost["CreateEndpoint"] = line.lost["DescribeEndpoint"] = 2
    told: list[Any] = []
    with pytest.raises(SageMakerError, match=f"CreateEndpoint {wanted.name} was carried out cannot be found out"):
        launch(over, prepared.wanted, told.append)
    assert sorted(left(over, wanted.name)) == [wanted.name] * 3  # nothing is taken from under an endpoint
    Endpoint(wanted.name, over).delete()


def test_somebody_elses_is_not_ours(line: Line, over: Session, wanted: Deployment) -> None:
    prepared = prepare(over, wanted)
    somebody = {"ModelName": wanted.name, "ExecutionRoleArn": wanted.role, "PrimaryContainer": {"Image": "echo"}}
    over.send(Request("sagemaker", "CreateModel", somebody))
    time.sleep(3)  # it is told by its age
    line.cut["CreateModel"] = 1
    with pytest.raises(SageMakerError, match="already existing model"):
        launch(over, prepared.wanted, lambda event: None)
    assert left(over, wanted.name) == [wanted.name]
    over.call("sagemaker", "DeleteModel", ModelName=wanted.name)
