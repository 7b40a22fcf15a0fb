"""One connection: whatever a server, a proxy or a network does to it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from tests.support.certificates import make_certificate
from tests.support.faulty_s3 import Fault, FaultyS3
from tests.support.web_server import Asked, Reply, WebServer, files, web_server

from bloomery.checkpoints.source import TransientError
from bloomery.checkpoints.wire.http import HttpConnection
from bloomery.checkpoints.wire.transport import CONNECT_TIMEOUT, STALL_TIMEOUT, Transport
from bloomery.errors import CheckpointError, ConfigurationError

DATA = bytes(range(256)) * 2000
FAST = Transport(connect_timeout=5.0, stall_timeout=0.4)


def get(url: str, transport: Transport = FAST, **headers: str) -> bytes:
    with closing(HttpConnection(transport)) as connection, connection.get(url, headers, "file") as answer:
        assert answer.status == 200
        return answer.text()


@contextmanager
def scripted(*answers: bytes, then: Callable[[socket.socket], object] | None = None) -> Iterator[str]:
    """A server that gives each connection the next answer whatever it asks, and then does ``then`` or hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(1 << 16)
                connection.sendall(answer)
                if then is not None:
                    then(connection)
                    over.wait(20)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/file"
    finally:
        over.set()
        listener.close()
        thread.join()


@pytest.fixture
def site() -> Iterator[WebServer]:
    with web_server(files({"/file": DATA, "/small": b"small"})) as server:
        yield server


class TestAnswers:
    def test_a_body_comes_whole(self, site: WebServer) -> None:
        assert get(f"{site.url}/file") == DATA

    def test_a_body_without_a_length_ends_with_the_connection(self) -> None:
        with scripted(b"HTTP/1.0 200 OK\r\n\r\nabc") as url:
            assert get(url) == b"abc"

    def test_a_chunked_body_comes_whole(self) -> None:
        chunked = Reply(200, DATA, {"Transfer-Encoding": "chunked"})
        with web_server(lambda asked: chunked) as server, closing(HttpConnection(FAST)) as connection:
            for _ in range(2):  # the connection is left where the next answer begins
                with connection.get(server.url, {}, "file") as answer:
                    assert answer.text() == DATA

    def test_one_connection_serves_many_requests(self, site: WebServer) -> None:
        with closing(HttpConnection(FAST)) as connection:
            sockets = set()
            for _ in range(3):
                with connection.get(f"{site.url}/file", {}, "file") as answer:
                    answer.text()
                sockets.add(id(connection._channel))
        assert len(sockets) == 1

    def test_a_small_body_that_nobody_reads_costs_no_connection(self, site: WebServer) -> None:
        with closing(HttpConnection(FAST)) as connection:
            with connection.get(f"{site.url}/small", {}, "file"):
                channel = connection._channel
            assert connection._channel is channel
            with connection.get(f"{site.url}/file", {}, "file") as answer:
                assert answer.text() == DATA

    def test_a_large_body_that_nobody_reads_is_left_with_its_connection(self, site: WebServer) -> None:
        with closing(HttpConnection(FAST)) as connection:
            with connection.get(f"{site.url}/file", {}, "file"):
                pass
            assert connection._channel is None
            with connection.get(f"{site.url}/small", {}, "file") as answer:
                assert answer.text() == b"small"

    def test_an_idle_connection_that_was_closed_is_replaced(self) -> None:
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
        with scripted(whole, whole) as url, closing(HttpConnection(FAST)) as connection:
            for _ in range(2):
                with connection.get(url, {}, "file") as answer:
                    assert answer.text() == b"abc"

    def test_what_comes_before_the_answer_is_skipped(self) -> None:
        with scripted(
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"
        ) as url:
            assert get(url) == b"a"


class TestBreaking:
    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (b"", "the server closed the connection without an answer"),
            (b"HTTP/1.1 200 OK\r\nContent-", "the connection was closed within the head of an answer"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
                "after 3 of 9 bytes: the connection was closed too early",
            ),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc", "the connection was closed too early"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nabc", "b'x' stands where the size of a chunk"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\nabc", "Content-Length is 'nine'"),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "'SSH-2.0-OpenSSH_9.2' is no HTTP answer"),
            (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "a head of over 65536 bytes"),
        ],
    )
    def test_what_comes_wrong_is_transient_and_said(self, answer: bytes, message: str) -> None:
        with scripted(answer) as url, pytest.raises(TransientError, match=f"^file: .*{message}"):
            get(url)

    @pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"])
    def test_a_stall_is_given_up(self, begun: bytes) -> None:
        began = time.monotonic()
        with (
            scripted(begun, then=lambda _: None) as url,
            pytest.raises(TransientError, match=r"no byte came for 0\.4 s"),
        ):
            get(url)
        assert 0.4 <= time.monotonic() - began < 5

    def test_a_slow_body_is_no_stall(self) -> None:
        def trickle(connection: socket.socket) -> None:
            for _ in range(6):
                time.sleep(0.2)
                connection.sendall(b"x")

        with scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", then=trickle) as url:
            assert get(url) == b"xxxxxx"

    def test_closing_from_another_thread_ends_a_read_at_once(self) -> None:
        with scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", then=lambda _: None) as url:
            connection = HttpConnection(Transport(stall_timeout=60.0))
            with connection.get(url, {}, "file") as answer:
                buffer = memoryview(bytearray(9))
                assert answer.readinto(buffer[:3]) == 3
                threading.Timer(0.1, connection.close).start()
                with pytest.raises(TransientError):
                    answer.readinto(buffer)
            assert connection._channel is None
            with pytest.raises(TransientError, match="was closed"), connection.get(url, {}, "file"):
                pass

    def test_a_port_that_nobody_listens_on_is_transient(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with pytest.raises(TransientError, match=f"^file: 127.0.0.1:{port} refuses connections"):
            get(f"http://127.0.0.1:{port}/")

    def test_a_server_that_never_says_hello_is_given_up(self) -> None:
        silent = Transport(connect_timeout=0.3)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with pytest.raises(TransientError, match=rf"^file: 127\.0\.0\.1:{port} was silent for 0\.3 s"):
                get(f"https://127.0.0.1:{port}/", silent)

    def test_a_host_that_does_not_exist_is_final(self) -> None:
        with pytest.raises(CheckpointError, match=r"there is no host nowhere\.invalid|name server did not answer"):
            get("http://nowhere.invalid/")

    def test_a_header_cannot_be_smuggled(self, site: WebServer) -> None:
        with pytest.raises(CheckpointError, match="would hold a line break"):
            get(f"{site.url}/file", X="a\r\nY: b")


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> tuple[Path, Path]:
        return make_certificate(tmp_path)

    @pytest.fixture
    def secure(self, certificate: tuple[Path, Path]) -> Iterator[WebServer]:
        with web_server(files({"/file": DATA}), certificate) as server:
            yield server

    def test_a_body_comes_over_tls(self, secure: WebServer, certificate: tuple[Path, Path]) -> None:
        assert get(f"{secure.url}/file", Transport(ca_bundle=str(certificate[0]))) == DATA

    def test_a_certificate_that_nobody_vouches_for_is_refused(self, secure: WebServer) -> None:
        with pytest.raises(
            CheckpointError, match=r"is not trusted \(CERTIFICATE_VERIFY_FAILED.*AWS_CA_BUNDLE"
        ) as caught:
            get(f"{secure.url}/file")
        assert not isinstance(caught.value, TransientError)

    def test_a_bundle_that_cannot_be_read_is_named(self, secure: WebServer, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"none\.pem cannot be read"):
            get(f"{secure.url}/file", Transport(ca_bundle=str(tmp_path / "none.pem")))

    def test_a_read_over_tls_does_not_wait_for_what_trickles(
        self, certificate: tuple[Path, Path], tmp_path: Path
    ) -> None:
        (tmp_path / "s3" / "bucket").mkdir(parents=True)
        (tmp_path / "s3" / "bucket" / "file").write_bytes(bytes(400_000))
        transport = Transport(stall_timeout=1.0, ca_bundle=str(certificate[0]))
        with FaultyS3(tmp_path / "s3", checks_signatures=False, certificate=certificate) as server:
            server.inject(Fault("rate", rate=20_000.0))
            with (
                closing(HttpConnection(transport)) as connection,
                connection.get(f"{server.url}/bucket/file", {}, "the file") as answer,
            ):
                assert 0 < answer.readinto(memoryview(bytearray(400_000))) < 400_000

    def test_a_stall_is_given_up_over_tls_too(self, certificate: tuple[Path, Path]) -> None:
        released = threading.Event()

        def late(asked: Asked) -> Reply:
            released.wait(20)
            return Reply()

        transport = Transport(stall_timeout=0.4, ca_bundle=str(certificate[0]))
        with web_server(late, certificate) as server:
            with pytest.raises(TransientError, match=r"no byte came for 0\.4 s"):
                get(server.url, transport)
            released.set()


class TestProxies:
    def test_plain_requests_name_the_whole_address(self, site: WebServer) -> None:
        with web_server(lambda asked: Reply(200, asked.path.encode())) as proxy:
            address = proxy.url.replace("//", "//user:p%40ss@")
            transport = Transport(proxies={"http": address})
            assert get("http://example.invalid/file?a=b", transport) == b"http://example.invalid/file?a=b"
        assert proxy.requests[0].headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"

    def test_a_host_may_be_excepted(self, site: WebServer) -> None:
        transport = Transport(proxies={"http": "http://127.0.0.1:1", "no": "example.com,127.0.0.1"})
        assert get(f"{site.url}/small", transport) == b"small"

    def test_tls_goes_through_a_tunnel(self, tmp_path: Path) -> None:
        certificate = make_certificate(tmp_path)
        with web_server(files({"/file": DATA}), certificate) as server, tunnel() as (proxy, asked):
            transport = Transport(proxies={"https": proxy}, ca_bundle=str(certificate[0]))
            assert get(f"{server.url}/file", transport) == DATA
            assert asked == [f"CONNECT {server.url.removeprefix('https://')} HTTP/1.1"]

    def test_a_proxy_that_refuses_is_named_without_its_password(self) -> None:
        with scripted(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as url:
            proxy = url.removesuffix("/file").replace("//", "//user:secret@")
            with pytest.raises(CheckpointError, match=r"refuses a connection to example\.invalid:443 ") as caught:
                get("https://example.invalid/file", Transport(proxies={"https": proxy}))
        assert "407 Proxy Authentication Required" in str(caught.value)
        assert "secret" not in str(caught.value)


class TestSettings:
    def test_timeouts_and_certificates_come_from_the_environment(self) -> None:
        environment = {STALL_TIMEOUT: "2.5", CONNECT_TIMEOUT: "3", "REQUESTS_CA_BUNDLE": "/ca.pem"}
        transport = Transport.read(environment)
        assert (transport.stall_timeout, transport.connect_timeout, transport.ca_bundle) == (2.5, 3.0, "/ca.pem")

    def test_openssls_own_variable_comes_first(self) -> None:
        assert Transport.read({"REQUESTS_CA_BUNDLE": "/ca.pem", "SSL_CERT_FILE": "/own.pem"}).ca_bundle is None

    @pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
    def test_a_timeout_that_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=f"{STALL_TIMEOUT}='{text}' is no number of seconds"):
            Transport.read({STALL_TIMEOUT: text})


@contextmanager
def tunnel() -> Iterator[tuple[str, list[str]]]:
    """A proxy that connects one client to whatever it names; its address, and what it was asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[str] = []

    def forward(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            line = client.recv(1 << 16).decode().split("\r\n")[0]
            asked.append(line)
            host, _, port = line.split(" ")[1].rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=forward, args=(server, client))
                back.start()
                forward(client, server)
                back.join()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        listener.close()
        thread.join()
