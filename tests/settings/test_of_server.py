"""The server's own settings: sources, addresses, what goes together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.settings_world import World

from bloomery.errors import ConfigurationError
from bloomery.settings import Address, ServerSettings, load


@pytest.mark.parametrize(
    ("environment", "host", "port"),
    [
        ({}, "127.0.0.1", 8080),
        ({"SERVING_INFERENCE_ADDRESS": "http://0.0.0.0:9000"}, "0.0.0.0", 9000),
        ({"SERVING_INFERENCE_ADDRESS": "http://[::1]:9000"}, "::1", 9000),
        ({"SAGEMAKER_BIND_TO_PORT": "7000"}, "127.0.0.1", 7000),
        ({"SAGEMAKER_BIND_TO_PORT": "7000", "SERVING_INFERENCE_ADDRESS": "http://0.0.0.0:9"}, "0.0.0.0", 7000),
    ],
)
def test_where_to_listen(world: World, environment: dict[str, str], host: str, port: int) -> None:
    server = world.settings("mine", **environment).server
    assert (server.host, server.port) == (host, port)


def test_the_command_line_beats_the_environment(world: World) -> None:
    environ = {"SERVING_INFERENCE_ADDRESS": "http://0.0.0.0:9000", "SAGEMAKER_BIND_TO_PORT": "7000"}
    settings = load(str(world.path / "mine"), host="::1", port=0, environ=environ, home=world.home)
    assert (settings.server.host, settings.server.port) == ("::1", 0)
    (origin,) = [row.origin for row in settings.explained if row.key == "inference_address"]
    assert origin == (
        "environment SERVING_INFERENCE_ADDRESS; port: environment SAGEMAKER_BIND_TO_PORT; "
        "host: command line --host; port: command line --port"
    )


def test_an_address_of_the_command_line_is_not_given_sagemakers_port(world: World) -> None:
    server = world.settings("mine", "inference_address=http://0.0.0.0:9", SAGEMAKER_BIND_TO_PORT="7000").server
    assert server.port == 9


@pytest.mark.parametrize("port", ["http", "-1", "65536"])
def test_other_ports_are_refused(world: World, port: str) -> None:
    with pytest.raises(ConfigurationError, match=r"SAGEMAKER_BIND_TO_PORT.*0 to 65535"):
        world.settings("mine", SAGEMAKER_BIND_TO_PORT=port)


def test_an_address_that_is_none_is_refused_with_its_source(world: World) -> None:
    with pytest.raises(ConfigurationError, match=r"environment SERVING_INFERENCE_ADDRESS: .*ftp://x.*http://HOST:PORT"):
        world.settings("mine", SERVING_INFERENCE_ADDRESS="ftp://x")


def test_a_unix_socket_has_no_port(world: World) -> None:
    address = "unix:/run/bloomery.sock"
    server = world.settings("mine", SERVING_INFERENCE_ADDRESS=address).server
    assert server.inference_address == Address("unix", path="/run/bloomery.sock")
    with pytest.raises(ConfigurationError, match="no host and no port"):
        world.settings("mine", SERVING_INFERENCE_ADDRESS=address, SAGEMAKER_BIND_TO_PORT="8080")


def test_a_management_address_of_its_own(world: World) -> None:
    server = world.settings("mine", SERVING_MANAGEMENT_ADDRESS="http://127.0.0.1:8081").server
    assert server.management_address == Address("http", "127.0.0.1", 8081)


def test_a_management_address_that_is_the_inference_address_is_none_of_its_own(world: World) -> None:
    """DJLServing's default writes it so."""
    assert world.settings("mine", SERVING_MANAGEMENT_ADDRESS="http://127.0.0.1:8080").server.management_address is None


class TestCertificates:
    def test_https_takes_two_pem_files(self, world: World) -> None:
        certificate, key = world.write("certificate.pem", ""), world.write("key.pem", "")
        server = world.settings(
            "mine",
            f"certificate_file={certificate}",
            f"private_key_file={key}",
            SERVING_INFERENCE_ADDRESS="https://0.0.0.0:8443",
        ).server
        assert (server.certificate_file, server.private_key_file) == (certificate, key)

    def test_https_without_them_is_refused_with_a_command(self, world: World) -> None:
        with pytest.raises(ConfigurationError, match=r"https://0\.0\.0\.0:8443 needs certificate_file.*openssl req"):
            world.settings("mine", SERVING_MANAGEMENT_ADDRESS="https://0.0.0.0:8443")

    def test_one_without_the_other_is_refused(self, world: World) -> None:
        with pytest.raises(ConfigurationError, match="go together"):
            world.settings("mine", f"certificate_file={world.write('certificate.pem', '')}")

    def test_a_file_that_is_not_there_is_refused(self, world: World, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="a file that exists"):
            world.settings("mine", f"certificate_file={tmp_path / 'gone.pem'}")


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("SERVING_MAX_REQUEST_SIZE", "1000", "max_request_size", 1000),
        ("SAGEMAKER_MAX_REQUEST_SIZE", "2000", "max_request_size", 2000),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6", "max_request_size", 6 * 2**20),
        ("SERVING_SHUTDOWN_GRACE", "3", "shutdown_grace", 3.0),
        ("SERVING_ALLOW_MODEL_URLS", "true", "allow_model_urls", True),
        ("SAGEMAKER_MULTI_MODEL", "true", "multi_model", True),
        ("SERVING_ALLOW_MULTI_STATUS", "true", "allow_multi_status", True),
        ("SERVING_BAD_REQUEST_HTTP_CODE", "422", "bad_request_http_code", 422),
        ("SERVING_WLM_ERROR_HTTP_CODE", "500", "wlm_error_http_code", 500),
        ("SERVING_THROTTLE_ERROR_HTTP_CODE", "429", "throttle_error_http_code", 429),
        ("SERVING_TIMEOUT_HTTP_CODE", "504", "timeout_http_code", 504),
        ("SERVING_SERVER_ERROR_HTTP_CODE", "502", "server_error_http_code", 502),
        ("SERVING_REQUEST_ID_HEADER_KEY", "x-amzn-trace-id", "request_id_header_key", "x-amzn-trace-id"),
        ("SERVING_CORS_ALLOWED_ORIGIN", "*", "cors_allowed_origin", "*"),
        ("SERVING_CORS_ALLOWED_METHODS", "GET,POST", "cors_allowed_methods", "GET,POST"),
        ("SERVING_CORS_ALLOWED_HEADERS", "x-a", "cors_allowed_headers", "x-a"),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "application/jsonlines", "default_accept", "application/jsonlines"),
    ],
)
def test_each_variable_arrives_with_its_type(world: World, variable: str, text: str, field: str, value: Any) -> None:
    server = world.settings("mine", **{variable: text}).server
    assert getattr(server, field) == value
    assert getattr(server, field) != getattr(ServerSettings(), field)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("timeout_http_code=200", "status from 400 to 599"),
        ("request_id_header_key=a b", "name of an HTTP header"),
        ("allow_model_urls=perhaps", "true or false"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(world: World, option: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        world.settings("mine", option)


def test_the_more_specific_variable_wins(world: World) -> None:
    environment = {"SERVING_MAX_REQUEST_SIZE": "1000", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6"}
    assert world.settings("mine", **environment).server.max_request_size == 1000


def test_the_command_line_comes_before_a_variable(world: World) -> None:
    assert world.settings("mine", "shutdown_grace=4", SERVING_SHUTDOWN_GRACE="3").server.shutdown_grace == 4


@pytest.mark.parametrize("key", ["keystore", "keystore_pass"])
def test_a_keystore_is_refused_with_the_command_that_converts_it(world: World, key: str) -> None:
    with pytest.raises(ConfigurationError, match="openssl pkcs12"):
        world.settings("mine", **{f"SERVING_{key.upper()}": "x"})
