"""Models from a URL, fetched by the program that the server runs for it."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.checkpoints.conftest import Bucket
from tests.support.certificates import make_certificate

CONTAINER = Path(__file__).parents[2] / "container"


class Site(BaseHTTPRequestHandler):
    """One archive, one place that leads to plain text, nothing else."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/down.tar.gz":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/model.tar.gz")
            self.end_headers()
            return
        body = b"packed" if path == "/model.tar.gz" else b"nothing here"
        self.send_response(200 if path == "/model.tar.gz" else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An https server's address, and the certificate to trust."""
    certificate, key = make_certificate(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}", certificate
    server.shutdown()
    thread.join()
    server.server_close()


def download(url: str, tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "archives").mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.endswith("_CA_BUNDLE")},
        "PYTHONPATH": str(CONTAINER),
        "TMPDIR": str(tmp_path),
        "BLOOMERY_MODEL_URL": url,
        "BLOOMERY_MODEL_DIRECTORY": str(tmp_path / "archives"),
        **env,
    }
    command = [sys.executable, "-m", "bloomery.checkpoints.download"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_an_archive_is_fetched_over_https(site: tuple[str, Path], tmp_path: Path) -> None:
    done = download(f"{site[0]}/model.tar.gz?signature=abc", tmp_path, SSL_CERT_FILE=str(site[1]))
    assert done.returncode == 0, done.stdout
    path = Path(done.stdout.splitlines()[-1].removeprefix("fetched: "))
    assert (path.name, path.read_bytes()) == ("model.tar.gz", b"packed")
    assert path.parent == tmp_path / "archives"


def test_a_refusal_is_told_without_the_signature(site: tuple[str, Path], tmp_path: Path) -> None:
    done = download(f"{site[0]}/other.tar.gz?signature=abc", tmp_path, SSL_CERT_FILE=str(site[1]))
    assert done.returncode == 1
    assert "/other.tar.gz cannot be fetched: 403" in done.stdout
    assert "abc" not in done.stdout + done.stderr


def test_a_certificate_that_nobody_vouches_for_is_refused(site: tuple[str, Path], tmp_path: Path) -> None:
    done = download(f"{site[0]}/model.tar.gz", tmp_path)
    assert done.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in done.stdout


def test_a_redirection_to_plain_text_is_not_followed(site: tuple[str, Path], tmp_path: Path) -> None:
    done = download(f"{site[0]}/down.tar.gz", tmp_path, SSL_CERT_FILE=str(site[1]))
    assert done.returncode == 1
    assert "leads to http, not https" in done.stdout


def test_over_https_only_archives_are_models(tmp_path: Path) -> None:
    done = download("https://127.0.0.1:1/model.bin", tmp_path)
    assert done.returncode == 1
    assert "is no archive" in done.stdout


def test_a_model_directory_is_fetched_from_s3_whole(bucket: Bucket, tmp_path: Path) -> None:
    uri = bucket.put({"model.py": b"def handle(inputs): ...", "serving.properties": b"engine=Python", "a/b.txt": b"b"})
    done = download(uri, tmp_path)
    assert done.returncode == 0, done.stdout
    path = Path(done.stdout.splitlines()[-1].removeprefix("fetched: "))
    assert (path / "model.py").is_file()
    assert (path / "a" / "b.txt").read_bytes() == b"b"


def test_an_archive_is_fetched_from_s3(bucket: Bucket, tmp_path: Path) -> None:
    uri = bucket.put({"mine.tar.gz": b"packed"})
    done = download(f"{uri.rstrip('/')}/mine.tar.gz", tmp_path)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "archives" / "mine.tar.gz").read_bytes() == b"packed"


def test_an_archive_that_is_not_in_s3_is_named(bucket: Bucket, tmp_path: Path) -> None:
    uri = bucket.put({"other.txt": b""}) + "/mine.tar.gz"
    done = download(uri, tmp_path)
    assert done.returncode == 1
    assert f"{uri} is neither a folder with objects nor an object" in done.stdout
