"""Keys and tokens are printed nowhere: they are planted where users put them and looked for in all that comes out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.server import REPOSITORY, finish, model_directory, serving, start

KEY = "xyzzy-secret-0123456789"
VARIABLES = {
    name: f"{KEY}-{name}"
    for name in (
        *("HF_TOKEN", "OPTION_HF_TOKEN", "OPTION_API_KEY", "OPTION_DB_PASSWORD", "HUGGING_FACE_HUB_TOKEN"),
        *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "SERVING_SECRET_KEY", "OPENAI_API_KEY"),
    )
}
PROPERTIES = f"""engine=Python
option.hf_token={KEY}-file
option.openai_api_key={KEY}-file
option.client_secret={KEY}-file
option.env=HF_TOKEN={KEY}-env,SOME_PASSWORD={KEY}-env,PLAIN=seen
"""
HANDLER = """
import os
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        assert inputs.get_property("hf_token").startswith("xyzzy-secret"), "the handler does not get it"
        assert os.environ["SOME_PASSWORD"].startswith("xyzzy-secret"), "the process does not get it"
        if {fails}:
            raise RuntimeError("no such weights")
        return None
    raise ValueError("never mind")
"""
COMMAND = ("-o", f"option.api_key={KEY}-command")


def directory(tmp_path: Path, fails: bool) -> Path:
    return model_directory(tmp_path / "m", HANDLER.format(fails=fails), PROPERTIES)


def test_a_server_that_serves_tells_them_to_nobody(tmp_path: Path) -> None:
    with serving(directory(tmp_path, False), *COMMAND, env=VARIABLES) as server:
        for path in ("/ping", "/models", "/models/m", "/nowhere", "/predictions/m/9", "/metrics", "/openapi.json"):
            assert KEY not in server.request("GET", path).body.decode(), path
        assert KEY not in server.post({}).body.decode()
        assert server.stop() == 0
        assert KEY not in server.log()


def test_the_report_of_a_load_that_failed_shows_stars(tmp_path: Path) -> None:
    server = start(directory(tmp_path, True), *COMMAND, env=VARIABLES)
    try:
        assert server.wait() == 1
        assert "api_key=***" in server.log()
        assert "no such weights" in server.log()
        assert KEY not in server.log()
    finally:
        finish(server)


def bloomery(*arguments: str | Path, env: dict[str, str] | None = None) -> str:
    """Everything that a command prints."""
    environment = {"PYTHONPATH": str(REPOSITORY / "container"), "PATH": "/usr/bin:/bin", **(env or {})}
    command = [sys.executable, "-m", "bloomery", *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    return run.stdout + run.stderr


def test_explain_shows_stars(tmp_path: Path) -> None:
    printed = bloomery("explain", directory(tmp_path, False), *COMMAND, env=VARIABLES)
    assert KEY not in printed
    for name in ("option.hf_token", "option.api_key", "option.client_secret", "option.env", "option.db_password"):
        assert name in printed
    assert printed.count("***") >= 6
    assert "PLAIN=seen" in printed


@pytest.mark.parametrize(
    "source",
    [
        f"s3://AKIAEXAMPLE:{KEY}@bucket/prefix/",
        f"https://user:{KEY}@host.invalid/model.tar.gz",
        f"https://bucket.invalid/m.tar.gz?X-Amz-Credential=AKIA&X-Amz-Signature={KEY}&X-Amz-Security-Token={KEY}",
    ],
)
def test_an_address_with_credentials_is_shown_without_them(source: str) -> None:
    assert KEY not in bloomery("explain", source)
    assert KEY not in bloomery("explain", "-o", f"option.model_id={source}")
    server = start(source, "-o", "engine=Python")
    try:
        assert server.wait() in (1, 2)
        assert KEY not in server.log(), [line for line in server.log().splitlines() if KEY in line]
    finally:
        finish(server)


@pytest.mark.parametrize("key", ["api_key", "hf_token", "option.env", "db.password"])
def test_a_command_line_that_is_refused_is_not_quoted_with_its_secret(tmp_path: Path, key: str) -> None:
    printed = bloomery("explain", directory(tmp_path, False), "-o", f"{key}={KEY}")
    assert f"-o {key}" in printed
    assert KEY not in printed
