"""KServe's v2 probes and metadata."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.http_api.test_server import loading
from tests.support.server import Server


def test_the_server_tells_name_and_version(server: Server) -> None:
    document = server.request("GET", "/v2").json()
    assert document["name"] == "bloomery"
    assert document["version"]


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/v2/models/laboratory/ready"])
def test_all_is_well_when_the_model_can_answer(server: Server, path: str) -> None:
    assert server.request("GET", path).status == 200


def test_while_loading_the_server_lives_and_is_not_ready(tmp_path: Path) -> None:
    with loading(tmp_path) as (server, _):
        assert server.request("GET", "/v2/health/live").status == 200
        for path in ("/v2/health/ready", "/v2/models/slow/ready"):
            reply = server.request("GET", path)
            assert (reply.status, reply.json()["ready"]) == (424, False)


def test_a_model_is_described(server: Server) -> None:
    document = server.request("GET", "/v2/models/laboratory").json()
    assert (document["name"], document["platform"]) == ("laboratory", "bloomery_python")
    assert document["inputs"][0]["datatype"] == "BYTES"


@pytest.mark.parametrize("path", ["", "/ready", "/versions/1", "/versions/1/ready"])
def test_an_unknown_model_is_a_404_in_the_protocols_words(server: Server, path: str) -> None:
    reply = server.request("GET", f"/v2/models/zz{path}")
    assert (reply.status, reply.json()) == (404, {"error": "Model not found: zz"})


def test_tensors_are_refused_with_what_works(server: Server) -> None:
    reply = server.post({"inputs": []}, "/v2/models/laboratory/infer")
    assert reply.status == 501
    assert "/predictions/laboratory" in reply.json()["error"]
