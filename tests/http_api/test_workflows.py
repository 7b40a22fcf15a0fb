"""Workflow files with one model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from tests.http_api.test_management import ECHO
from tests.support.server import Reply, Server, model_directory


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_directory(tmp_path / "echo", ECHO)


@pytest.fixture(autouse=True)
def _clean(server: Server) -> Iterator[None]:
    yield
    for workflow in server.request("GET", "/workflows").json()["workflows"]:
        if workflow["workflowName"] != "laboratory":
            server.request("DELETE", f"/workflows/{workflow['workflowName']}")


def add(server: Server, file: Path, **parameters: object) -> Reply:
    return server.request("POST", "/workflows?" + urlencode({"url": str(file), **parameters}))


def write(path: Path, document: object) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_a_json_file_becomes_a_model_with_the_workflows_name(server: Server, model: Path, tmp_path: Path) -> None:
    document = {"name": "flow", "version": "1.0", "models": {"m": str(model)}, "workflow": {"out": ["m", "in"]}}
    reply = add(server, write(tmp_path / "flow.json", document))
    assert (reply.status, reply.json()) == (200, {"status": 'Workflow "flow" registered.'})
    assert server.request("POST", "/predictions/flow").status == 200
    assert {"workflowName": "flow", "version": "1.0"} in server.request("GET", "/workflows").json()["workflows"]
    (described,) = server.request("GET", "/workflows/flow/1.0").json()
    assert described["workflowName"] == "flow"
    assert server.request("PUT", "/workflows/flow?min_worker=2").status == 200
    reply = server.request("DELETE", "/workflows/flow")
    assert (reply.status, reply.json()) == (200, {"status": 'Model or workflow "flow" unregistered'})


def test_a_yaml_file_does_so_too_and_its_settings_count(server: Server, model: Path, tmp_path: Path) -> None:
    text = "queueSize: 5\nminWorkers: 2\nmaxWorkers: 2\nmodels:\n  m:\n    modelUrl: echo\n    queueSize: 7\n"
    assert add(server, write(tmp_path / "flow.yaml", text)).status == 200
    (described,) = server.request("GET", "/workflows/m").json()
    assert described["models"][0]["queueSize"] == 7
    assert described["models"][0]["workerGroups"][0]["minWorkers"] == 2


def test_several_models_are_refused_by_name(server: Server, model: Path, tmp_path: Path) -> None:
    reply = add(server, write(tmp_path / "flow.json", {"models": {"a": str(model), "b": str(model)}}))
    assert reply.status == 400
    assert "2 models (a, b)" in reply.json()["message"]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("{", "no workflow file"),
        ("[]", "no workflow file"),
        ('{"models": {}}', "has no models"),
        ('{"models": {"m": 3}}', "no modelUrl"),
        ('{"models": {"m": "echo"}, "workflow": {"out": ["m", ["m", "in"]]}}', "other steps are not run"),
        ('{"models": {"m": "echo"}, "queueSize": "long"}', "job_queue_size"),
    ],
)
def test_a_file_that_makes_no_sense_is_a_400(server: Server, tmp_path: Path, document: str, reason: str) -> None:
    reply = add(server, write(tmp_path / "flow.json", document))
    assert reply.status == 400
    assert reason in reply.json()["message"]


def test_yaml_makes_no_objects(server: Server, tmp_path: Path) -> None:
    text = f"models: !!python/object/apply:os.system ['touch {tmp_path}/owned']\n"
    assert add(server, write(tmp_path / "flow.yaml", text)).status == 400
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("url", ["/no/such/file.json", "s3://bucket/flow.json"])
def test_a_file_that_is_not_here_is_a_400(server: Server, url: str) -> None:
    reply = server.request("POST", f"/workflows?url={url}")
    assert reply.status == 400
    assert url in reply.json()["message"]


def test_adding_is_a_changing_call(server: Server, tmp_path: Path) -> None:
    headers = {"X-Forwarded-For": "192.0.2.1"}
    for method, path in (("POST", "/workflows?url=x"), ("PUT", "/workflows/x"), ("DELETE", "/workflows/x")):
        assert server.request(method, path, headers=headers).status == 403
