from __future__ import annotations

import sys

import pytest

from bloomery.errors import ConfigurationError, DeploymentFailure
from bloomery.sagemaker.emulator.containers.images import Images, Program
from bloomery.sagemaker.emulator.deployment import ImageRule

LMI = "763104351884.dkr.ecr.us-west-2.amazonaws.com/djl-inference:0.36.0-lmi27.0.0-cu130"


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


def command(program: object, port: int = 4711) -> list[str]:
    assert isinstance(program, Program)
    return program.filled("/models/one", port, "image:1")[0]


@pytest.mark.parametrize(
    "image",
    [
        LMI,
        "763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:0.19.0-deepspeed0.7.3-cu113",
        "deepjavalibrary/djl-serving:0.36.0",
        "bloomery",
        "bloomery:latest",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/bloomery-gpu@sha256:00ff",
    ],
)
def test_this_server_stands_for_its_own_and_the_public_images(image: str) -> None:
    program = Images().find(image)
    assert command(program) == [sys.executable, "-m", "bloomery", "serve"]
    assert isinstance(program, Program)
    assert program.filled("/models/one", 1, image)[1]["SERVING_MODEL_STORE"] == "/models/one"


@pytest.mark.parametrize("image", ["pytorch-inference:2.0", "my/bloomeries:1/x", "not-djl-inference-either"])
def test_other_images_need_docker(image: str, no_docker: None) -> None:
    with pytest.raises(DeploymentFailure, match=r"there is no docker command.*--image REGEX=COMMAND"):
        Images().find(image)


def test_the_first_rule_that_fits_wins_over_the_defaults() -> None:
    images = Images([ImageRule("lmi27", "first 'one word'"), ImageRule("djl", "second")])
    assert command(images.find(LMI)) == ["first", "one word", "serve"]
    assert command(images.find("djl-inference:0.20")) == ["second", "serve"]


def test_placeholders_say_how_a_command_is_called() -> None:
    program = Images([ImageRule(".", "run --port {port} --dir={model_dir} {image} {other}")]).find("x")
    assert command(program) == ["run", "--port", "4711", "--dir=/models/one", "image:1", "{other}"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (ImageRule("(", "run"), r"'\(' is no regular expression"),
        (ImageRule("x", " "), "name the command to run"),
        (ImageRule("x", "run 'it"), "No closing quotation"),
    ],
)
def test_a_wrong_rule_is_refused_at_once(rule: ImageRule, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Images([rule])
