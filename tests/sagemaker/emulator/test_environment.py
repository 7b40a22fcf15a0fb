from __future__ import annotations

from pathlib import Path

import pytest

from bloomery.sagemaker.emulator.containers import environment
from bloomery.sagemaker.emulator.deployment import ContainerSpec, ModelData, Surroundings

SPEC = ContainerSpec("image", {"TENSOR_PARALLEL_DEGREE": "2"}, ModelData(), "model")


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    return Surroundings(
        "http://127.0.0.1:4566", "us-east-1", "123456789012", tmp_path, "http://127.0.0.1:9000", "key", "secret"
    )


def of_program(around: Surroundings, scratch: Path, spec: ContainerSpec = SPEC, **variables: str) -> dict[str, str]:
    return environment.of_program(
        spec, variables, around, "eu-west-1", model_dir="/opt/ml/model", port=4711, scratch=scratch
    )


def test_nothing_of_the_users_own_gets_in(
    around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "HF_TOKEN", "HTTP_PROXY", "OPTION_ENGINE"):
        monkeypatch.setenv(name, "the user's")
    monkeypatch.setenv("HOME", "/the user's")
    found = of_program(around, tmp_path)
    assert not [name for name, value in found.items() if "the user's" in value]
    assert found["AWS_ACCESS_KEY_ID"] == "key"
    assert Path(found["AWS_CONFIG_FILE"]).read_bytes() == b""
    assert Path(found["HOME"]).is_relative_to(tmp_path)
    assert Path(found["TMPDIR"]).is_dir()


def test_the_emulator_is_the_only_aws(around: Surroundings, tmp_path: Path) -> None:
    found = of_program(around, tmp_path)
    assert found["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert found["AWS_ENDPOINT_URL_S3"] == "http://127.0.0.1:9000"
    assert found["AWS_REGION"] == found["SAGEMAKER_REGION"] == "eu-west-1"
    assert found["AWS_EC2_METADATA_DISABLED"] == "true"


def test_the_models_variables_win_but_for_the_port(around: Surroundings, tmp_path: Path) -> None:
    spec = ContainerSpec("image", {"AWS_REGION": "mine", "A": "b", "SAGEMAKER_BIND_TO_PORT": "1"}, ModelData(), "m")
    found = of_program(around, tmp_path, spec, A="the image's", B="the image's")
    assert (found["AWS_REGION"], found["A"], found["B"]) == ("mine", "b", "the image's")
    assert found["SAGEMAKER_BIND_TO_PORT"] == "4711"


def test_in_docker_loopback_has_another_name(around: Surroundings) -> None:
    found = environment.of_docker(SPEC, around, "us-east-1")
    assert found["AWS_ENDPOINT_URL"] == "http://host.docker.internal:4566"
    assert found["AWS_ENDPOINT_URL_S3"] == "http://host.docker.internal:9000"
    assert "PATH" not in found
    assert "SAGEMAKER_BIND_TO_PORT" not in found
