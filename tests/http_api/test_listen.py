"""Addresses: TCP, TLS from PEM files, unix sockets."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.certificates import make_certificate
from tests.support.server import LABORATORY, Server, finish, start

from bloomery.errors import AddressError
from bloomery.http_api import listen
from bloomery.settings.address import Address


class OverUnix(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short path for a socket."""
    directory = Path(f"/tmp/bl-{os.urandom(4).hex()}")
    directory.mkdir(mode=0o700)
    yield directory / "s"
    for child in directory.iterdir():
        child.unlink()
    directory.rmdir()


class TestUnixSockets:
    @contextlib.contextmanager
    def serving(self, path: Path) -> Iterator[Server]:
        server = start(LABORATORY, env={"SERVING_INFERENCE_ADDRESS": f"unix:{path}"}, port=())
        try:
            server.wait_for(rf"(?m)^listening on unix:{path};", server.out)
            yield server
        finally:
            finish(server)

    def status(self, path: Path, method: str = "POST", target: str = "/invocations") -> int:
        with contextlib.closing(OverUnix(path)) as connection:
            connection.request(method, target)
            return connection.getresponse().status

    def test_a_model_answers_and_is_managed_over_one(self, path: Path) -> None:
        with self.serving(path) as server:
            server.wait_ready()
            assert self.status(path) == 200
            assert self.status(path, "PUT", "/models/laboratory?min_worker=1") == 200

    def test_only_its_user_can_connect_and_its_file_goes_at_the_end(self, path: Path) -> None:
        with self.serving(path) as server:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert server.stop() == 0
            assert not path.exists()

    def test_what_a_killed_server_left_is_replaced(self, path: Path) -> None:
        with self.serving(path) as server:
            server.signal(signal.SIGKILL)
            server.wait()
            assert path.exists()
        with self.serving(path) as server:
            server.wait_ready()
            assert self.status(path) == 200

    def test_one_that_a_server_listens_on_is_refused(self, path: Path) -> None:
        with self.serving(path) as first:
            second = start(LABORATORY, env={"SERVING_INFERENCE_ADDRESS": f"unix:{path}"}, port=())
            try:
                assert second.wait() == 3
                assert f"unix:{path} is already in use" in second.log()
            finally:
                finish(second)
            first.wait_ready()
            assert self.status(path) == 200

    def test_a_file_that_is_no_socket_stays(self, path: Path) -> None:
        path.write_text("precious")
        with pytest.raises(AddressError, match="a file that is no socket is there"):
            listen.bind(Address("unix", path=str(path)))
        assert path.read_text() == "precious"

    def test_a_directory_that_is_not_there_is_named(self) -> None:
        with pytest.raises(AddressError, match=r"unix:/no/such/place/s: No such file"):
            listen.bind(Address("unix", path="/no/such/place/s"))

    def test_a_file_that_another_put_there_meanwhile_stays(self, path: Path) -> None:
        listener = listen.bind(Address("unix", path=str(path)))
        path.unlink()
        path.write_text("another's")
        listener.close()
        assert path.exists()


class TestTls:
    def settings(self, certificate: Path, key: Path) -> dict[str, str]:
        return {
            "SERVING_INFERENCE_ADDRESS": "https://127.0.0.1:8443",
            "SERVING_CERTIFICATE_FILE": str(certificate),
            "SERVING_PRIVATE_KEY_FILE": str(key),
        }

    @pytest.fixture(scope="class")
    @classmethod
    def certificate(cls, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
        return make_certificate(tmp_path_factory.mktemp("pem"))

    @pytest.fixture(scope="class")
    @classmethod
    def port(cls, certificate: tuple[Path, Path]) -> Iterator[int]:
        server = start(LABORATORY, env=cls.settings(cls(), *certificate))
        try:
            yield int(server.wait_for(r"(?m)^ready: .* on https://127\.0\.0\.1:(\d+) ", server.out)[1])
        finally:
            finish(server)

    def test_a_client_that_trusts_the_certificate_gets_an_answer(
        self, port: int, certificate: tuple[Path, Path]
    ) -> None:
        trust = ssl.create_default_context(cafile=str(certificate[0]))
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=trust)
        with contextlib.closing(connection):
            connection.request("POST", "/invocations", b"{}")
            assert connection.getresponse().status == 200

    def test_tls_before_1_2_is_refused(self, port: int) -> None:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", port), timeout=30) as plain, pytest.raises(ssl.SSLError):
            old.wrap_socket(plain)

    def test_plain_http_gets_no_answer(self, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert not connection.recv(100).startswith(b"HTTP/1.1 200")

    def test_a_key_with_a_passphrase_ends_the_program_with_a_sentence(self, tmp_path: Path) -> None:
        server = start(LABORATORY, env=self.settings(*make_certificate(tmp_path, b"secret")))
        try:
            assert server.wait() == 2
            assert "the key must have no passphrase" in server.log()
        finally:
            finish(server)

    def test_files_that_do_not_belong_together_end_it_too(self, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
        server = start(LABORATORY, env=self.settings(certificate[0], make_certificate(tmp_path)[1]))
        try:
            assert server.wait() == 2
            assert "belong together" in server.log()
        finally:
            finish(server)
