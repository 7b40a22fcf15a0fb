"""SageMaker's multi-model mode: the platform adds and removes models, from outside the container."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.http_api.test_management import ECHO
from tests.http_api.test_permission import ask, own_address
from tests.support.server import Reply, Server, model_directory, serving


class TestSageMakersMultiModelMode:
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Server]:
        with serving("--host", "0.0.0.0", env={"SAGEMAKER_MULTI_MODEL": "true"}, ready=False) as running:
            yield running

    @pytest.fixture
    def echo(self, tmp_path: Path) -> Path:
        return model_directory(tmp_path / "echo", ECHO)

    def call(self, server: Server, method: str, path: str, body: object = None) -> Reply:
        text = None if body is None else json.dumps(body)
        return ask(own_address(), server.port, method, path, {"Content-Type": "application/json"}, text)

    def test_a_server_without_models_is_healthy(self, server: Server) -> None:
        assert self.call(server, "GET", "/ping").status == 200
        assert self.call(server, "GET", "/models").json() == {"models": []}

    def test_the_platform_adds_asks_and_removes_models_from_outside(self, server: Server, echo: Path) -> None:
        wanted = {"model_name": "abc123", "url": str(echo)}
        assert self.call(server, "POST", "/models", wanted).status == 200
        assert self.call(server, "POST", "/models", wanted).status == 409
        (model,) = self.call(server, "GET", "/models").json()["models"]
        assert (model["modelName"], model["modelUrl"]) == ("abc123", str(echo))
        assert self.call(server, "GET", "/models/abc123").status == 200
        assert self.call(server, "POST", "/models/abc123/invoke", {}).status == 200
        assert self.call(server, "DELETE", "/models/abc123").status == 200
        for method, path in (
            ("GET", "/models/abc123"),
            ("POST", "/models/abc123/invoke"),
            ("DELETE", "/models/abc123"),
        ):
            assert self.call(server, method, path).status == 404

    def test_a_model_that_memory_cannot_hold_is_a_507(self, server: Server, echo: Path) -> None:
        with (echo / "weights.safetensors").open("wb") as file:
            file.truncate(2**43)  # sparse: 8 TiB that take no room
        reply = self.call(server, "POST", "/models", {"model_name": "huge", "url": str(echo)})
        assert reply.status == 507
        assert "are available" in reply.json()["message"]
        assert self.call(server, "GET", "/models").json() == {"models": []}

    def test_a_model_whose_load_runs_out_of_memory_is_a_507_too(self, server: Server, tmp_path: Path) -> None:
        hungry = model_directory(tmp_path / "hungry", "def handle(inputs):\n    raise MemoryError('out of memory')\n")
        reply = self.call(server, "POST", "/models", {"model_name": "hungry", "url": str(hungry)})
        assert reply.status == 507

    def test_other_changing_calls_stay_with_this_machine(self, server: Server) -> None:
        assert self.call(server, "POST", "/server/logging?level=debug").status == 403
