from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.emulator import environment

from bloomery.cli import emulating


def exported(*arguments: str, **env: str) -> dict[str, str]:
    """The AWS variables of a shell after ``eval "$(bloomery sagemaker-local env)"``."""
    command = f'eval "$({sys.executable} -m bloomery sagemaker-local {" ".join(arguments)})"; env'
    run = subprocess.run(["sh", "-c", command], env=environment(env), capture_output=True, text=True, check=True)
    lines = (line.partition("=") for line in run.stdout.splitlines())
    return {name: value for name, _, value in lines if name.startswith("AWS_")}


def test_a_client_is_pointed_here_and_can_reach_no_account() -> None:
    found = exported(
        "env", "--port", "1234", AWS_PROFILE="production", AWS_SESSION_TOKEN="token", AWS_REGION="eu-west-1"
    )
    assert found == {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1234",
        "AWS_ACCESS_KEY_ID": "bloomery-local",
        "AWS_SECRET_ACCESS_KEY": "bloomery-local",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def test_the_port_may_stand_before_the_word() -> None:
    assert exported("--port", "1234", "env")["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1234"
    assert exported("env")["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{emulating.PORT}"


def test_endpoints_of_single_services_do_not_lead_elsewhere() -> None:
    found = exported("env", AWS_ENDPOINT_URL_STS="http://elsewhere", AWS_IGNORE_CONFIGURED_ENDPOINT_URLS="true")
    assert "AWS_ENDPOINT_URL_STS" not in found
    assert "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS" not in found


def test_an_external_s3_keeps_its_address_and_its_keys() -> None:
    own = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "own"}
    found = exported("env", **own)
    assert own.items() <= found.items()


@pytest.mark.parametrize("image", ["no-equals", "=command", "regex="])
def test_a_rule_for_images_must_be_whole(image: str, tmp_path: Path) -> None:
    run = sagemaker_local("--image", image, "--state", str(tmp_path))
    assert run.returncode == 2
    assert "--image takes REGEX=COMMAND, such as" in run.stderr
    assert f"got {image!r}" in run.stderr


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = sagemaker_local("--port", str(port), "--state", str(tmp_path))
    assert run.returncode == 3
    assert f"port {port} on 127.0.0.1 is already in use" in run.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    # What ``find_spec`` finds is nothing, as where moto was never installed.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'moto' else find(name, package)\n"
    )
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])}
    run = sagemaker_local("--state", str(tmp_path / "state"), **env)
    assert run.returncode == 2
    assert 'pip install "bloomery[emulator]"' in run.stderr
    assert len(run.stderr.splitlines()) == 1


def sagemaker_local(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    port = () if "--port" in arguments else ("--port", "0")
    command = [sys.executable, "-m", "bloomery", "sagemaker-local", *port, *arguments]
    return subprocess.run(command, env=environment(env), capture_output=True, text=True, timeout=60)
