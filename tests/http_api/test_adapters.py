"""Adapters over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serving.test_adapters import ADAPTING
from tests.support.server import LABORATORY, Server, model_directory, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = model_directory(tmp_path_factory.mktemp("adapters") / "adapting", ADAPTING)
    (directory / "weights").mkdir()
    with serving(directory) as running:
        yield running


@pytest.fixture(autouse=True)
def _clean(server: Server) -> Iterator[None]:
    yield
    for adapter in server.request("GET", "/adapters").json()["adapters"]:
        server.request("DELETE", f"/adapters/{adapter['name']}")


def known(server: Server) -> dict[str, dict[str, object]]:
    """What the handler has been told."""
    return dict(server.post({}).json()["adapters"])


@pytest.mark.parametrize("base", ["/adapters", "/models/adapting/adapters"])
def test_from_registered_to_unregistered(server: Server, base: str) -> None:
    reply = server.request("POST", f"{base}?name=a&src=weights&alias=b&rank=8")
    assert (reply.status, reply.json()) == (200, {"status": "Adapter a registered"})
    (listed,) = server.request("GET", base).json()["adapters"]
    described = server.request("GET", f"{base}/a").json()
    assert listed["name"] == described["name"] == "a"
    assert listed["src"].endswith("/adapting/weights")
    assert described["options"] == {"rank": "8"}
    assert known(server) == {"a": {"src": listed["src"], "alias": "b", "options": {"rank": "8"}}}

    assert server.request("POST", f"{base}/a/update?src=/other").json() == {"status": "Adapter a updated"}
    assert known(server)["a"]["src"] == server.request("GET", f"{base}/a").json()["src"] == "/other"

    assert server.request("DELETE", f"{base}/a").json() == {"status": "Adapter a unregistered"}
    assert known(server) == {}
    assert server.request("GET", base).json() == {"adapters": []}


def test_a_json_body_does_what_a_query_does(server: Server) -> None:
    assert server.post({"name": "a", "src": "/weights", "rank": 8}, "/adapters").status == 200
    assert known(server)["a"]["options"] == {"rank": "8"}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/adapters/zz"), ("DELETE", "/adapters/zz"), ("POST", "/adapters/zz/update?src=/x")],
)
def test_an_unknown_adapter_is_a_404_that_names_it(server: Server, method: str, path: str) -> None:
    reply = server.request(method, path)
    assert reply.status == 404
    assert "Adapter not found: zz" in reply.json()["message"]


def test_a_request_for_a_known_adapter_reaches_the_handler_and_for_an_unknown_one_is_a_404(server: Server) -> None:
    server.request("POST", "/adapters?name=a&src=/weights")
    assert server.post({}, "/invocations?adapter=a").status == 200
    reply = server.post({}, "/invocations?adapter=zz")
    assert reply.status == 404
    assert "the adapters of model 'adapting': a" in reply.json()["message"]


def test_a_duplicate_is_a_409(server: Server) -> None:
    assert [server.request("POST", "/adapters?name=a&src=/w").status for _ in range(2)] == [200, 409]


def test_what_the_handler_refuses_is_a_424_with_its_words(server: Server) -> None:
    reply = server.request("POST", "/adapters?name=a&src=bad")
    assert reply.status == 424
    assert "no such weights" in reply.json()["message"]
    assert known(server) == {}


@pytest.mark.parametrize("query", ["src=/weights", "name=a", "name=a%2Fb&src=/weights"])
def test_a_missing_or_unfit_parameter_is_a_400(server: Server, query: str) -> None:
    assert server.request("POST", f"/adapters?{query}").status == 400


def test_a_source_from_elsewhere_is_refused_unless_enabled(server: Server) -> None:
    reply = server.request("POST", "/adapters?name=a&src=s3://bucket/adapter")
    assert reply.status == 403
    assert "allow_model_urls" in reply.json()["message"]


def test_registering_is_a_changing_call(server: Server) -> None:
    headers = {"X-Forwarded-For": "192.0.2.1"}
    for method, path in (
        ("POST", "/adapters?name=a&src=/w"),
        ("DELETE", "/adapters/a"),
        ("POST", "/adapters/a/update"),
    ):
        assert server.request(method, path, headers=headers).status == 403
    assert server.request("GET", "/adapters", headers=headers).status == 200


def test_an_adapter_of_an_unknown_model_is_a_404(server: Server) -> None:
    assert server.request("GET", "/models/nobody/adapters").json()["type"] == "ModelNotFoundException"


def test_a_handler_without_the_functions_says_so_with_a_400() -> None:
    with serving(LABORATORY) as server:
        reply = server.request("POST", "/adapters?name=a&src=/weights")
        assert reply.status == 400
        assert "has no function 'register_adapter'" in reply.json()["message"]
        assert json.loads(server.post({}, "/invocations?adapter=mine").body)["content"][-1] == ["adapter", "mine"]


def test_directories_beside_the_model_are_listed(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "m", ADAPTING)
    (directory / "adapters" / "french").mkdir(parents=True)
    with serving(directory) as server:
        (adapter,) = server.request("GET", "/models/m/adapters").json()["adapters"]
        assert adapter == {"name": "french", "src": str(directory / "adapters" / "french")}
