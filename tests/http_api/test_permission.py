"""Who may make changing calls."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil
import pytest
from tests.http_api.test_management import ECHO
from tests.support.server import LABORATORY, Reply, Server, model_directory, serving

CHANGING = [
    ("POST", f"/models?url={quote(str(LABORATORY))}&model_name=other"),
    ("PUT", "/models/laboratory?min_worker=1"),
    ("DELETE", "/models/laboratory"),
    ("DELETE", "/models/laboratory/1"),
    ("POST", "/server/logging?level=debug"),
]


@pytest.fixture(scope="module")
def everywhere() -> Iterator[Server]:
    """A server on all interfaces, as in a container."""
    with serving(LABORATORY, "--host", "0.0.0.0") as running:
        yield running


def own_address() -> str:
    """An address of this machine that is not loopback: whoever connects to it comes from it."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET and not each.address.startswith("127."):
                return str(each.address)
    pytest.skip("this machine has no address but loopback")


def ask(
    host: str, port: int, method: str, path: str, headers: Mapping[str, str] | None = None, body: str | None = None
) -> Reply:
    with closing(http.client.HTTPConnection(host, port, timeout=30)) as connection:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return Reply(answer.status, answer.reason, dict(answer.getheaders()), answer.read())


def refused(reply: Reply) -> str:
    """The reason."""
    assert (reply.status, reply.json()["type"]) == (403, "ForbiddenException")
    return str(reply.json()["message"])


@pytest.mark.parametrize(("method", "path"), CHANGING)
def test_from_another_machine_a_changing_call_is_refused(everywhere: Server, method: str, path: str) -> None:
    reason = refused(ask(own_address(), everywhere.port, method, path))
    assert "only this machine itself" in reason
    assert "SERVING_MANAGEMENT_ADDRESS" in reason


def test_from_another_machine_models_are_described_and_answer(everywhere: Server) -> None:
    for method, path in (("GET", "/models"), ("GET", "/models/laboratory"), ("POST", "/invocations")):
        assert ask(own_address(), everywhere.port, method, path).status == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "X-Real-IP", "Via"])
def test_through_a_proxy_on_this_machine_a_changing_call_is_refused(everywhere: Server, header: str) -> None:
    for method, path in CHANGING:
        assert header in refused(everywhere.request(method, path, headers={header: "192.0.2.1"}))


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:8080"])
def test_a_page_in_a_browser_here_cannot_change_anything(everywhere: Server, origin: str) -> None:
    for method, path in CHANGING:
        assert "cors_allowed_origin" in refused(everywhere.request(method, path, headers={"Origin": origin}))


def test_a_name_that_was_made_to_stand_for_loopback_is_refused(everywhere: Server) -> None:
    for method, path in CHANGING:
        reason = refused(everywhere.request(method, path, headers={"Host": "rebound.example:8080"}))
        assert "'rebound.example'" in reason


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "[::1]:80", "a.localhost"])
def test_loopbacks_own_names_are_not(everywhere: Server, host: str) -> None:
    assert everywhere.request("PUT", "/models/laboratory?min_worker=1", headers={"Host": host}).status == 200


def test_nothing_was_changed_by_what_was_refused(everywhere: Server) -> None:
    (model,) = everywhere.request("GET", "/models").json()["models"]
    assert model["modelName"] == "laboratory"


def test_a_page_that_cors_names_may_manage_and_any_page_is_no_name() -> None:
    call = ("PUT", "/models/laboratory?min_worker=1", None)
    with serving(LABORATORY, env={"SERVING_CORS_ALLOWED_ORIGIN": "https://console.example"}) as server:
        assert server.request(*call, {"Origin": "https://console.example"}).status == 200
        assert server.request(*call, {"Origin": "https://evil.example"}).status == 403
    with serving(LABORATORY, env={"SERVING_CORS_ALLOWED_ORIGIN": "*"}) as server:
        assert server.request(*call, {"Origin": "https://console.example"}).status == 403


class TestAManagementAddress:
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Server]:
        with serving(LABORATORY, env={"SERVING_MANAGEMENT_ADDRESS": "http://0.0.0.0:0"}) as running:
            yield running

    @pytest.fixture
    def port(self, server: Server) -> int:
        port = urlsplit(server.wait_for(r"(?m)^management on (http://\S+)$", server.out)[1]).port
        assert port is not None
        return port

    def test_there_models_are_managed_from_anywhere(self, port: int, tmp_path: Path) -> None:
        directory = model_directory(tmp_path / "echo", ECHO)
        assert ask(own_address(), port, "POST", f"/models?url={quote(str(directory))}").status == 200
        assert ask(own_address(), port, "PUT", "/models/echo?min_worker=1").status == 200
        assert ask(own_address(), port, "DELETE", "/models/echo").status == 200

    @pytest.mark.parametrize("path", ["/invocations", "/predictions/laboratory", "/models/laboratory/invoke"])
    def test_there_nothing_is_inferred(self, port: int, path: str) -> None:
        assert ask("127.0.0.1", port, "POST", path).status in (404, 405)

    def test_there_the_servers_health_is_told(self, port: int) -> None:
        assert ask("127.0.0.1", port, "GET", "/ping").status == 200

    def test_there_too_a_page_in_a_browser_is_refused(self, port: int) -> None:
        for headers in ({"Origin": "https://evil.example"}, {"Host": "rebound.example"}):
            assert ask("127.0.0.1", port, "DELETE", "/models/laboratory", headers).status == 403

    @pytest.mark.parametrize(("method", "path"), CHANGING)
    def test_elsewhere_models_are_not_managed_any_more(self, server: Server, method: str, path: str) -> None:
        assert "models are managed at http://0.0.0.0:0" in refused(server.request(method, path))

    def test_elsewhere_models_answer_and_are_described(self, server: Server) -> None:
        assert server.post({}).status == 200
        assert server.request("GET", "/models/laboratory").status == 200
