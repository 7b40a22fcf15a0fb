"""SageMaker's security controls: each forbids one thing, wherever it is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.settings_world import World

from bloomery.errors import ConfigurationError
from bloomery.settings import ModelSettings
from bloomery.settings.security import CHAT_TEMPLATE, CONTROLS, PICKLES, REMOTE_CODE, REQUIREMENTS, SCRIPTS


def model(world: World, *controls: str, argument: str = "mine", **environ: str) -> ModelSettings:
    return world.model(argument, SAGEMAKER_SECURITY_CONTROLS=", ".join(controls), **environ)


def refused(world: World, control: str, words: str, argument: str = "mine", **environ: str) -> None:
    """Forbidden with the control, and served without it."""
    others = [each for each in CONTROLS if each not in (control, SCRIPTS)]
    model(world, *others, argument=argument, **environ)
    with pytest.raises(ConfigurationError, match=words) as refusal:
        model(world, control, argument=argument, **environ)
    assert f"is forbidden by {control} (environment SAGEMAKER_SECURITY_CONTROLS); " in str(refusal.value)


def checkpoint(world: World, at: str = "checkpoint") -> Path:
    world.write(f"{at}/model.safetensors", "")
    world.write(f"{at}/tokenizer_config.json", "{}")
    return world.write(f"{at}/config.json", "{}").parent


def test_requirements(world: World) -> None:
    world.write("mine/requirements.txt", "x")
    refused(world, REQUIREMENTS, "mine/requirements.txt")


def test_a_handler_of_ones_own(world: World) -> None:
    refused(world, SCRIPTS, "mine/model.py is forbidden")


def test_a_handler_that_is_a_module(world: World) -> None:
    refused(world, SCRIPTS, "the handler my.module", OPTION_ENTRYPOINT="my.module")


def test_the_built_in_and_the_products_own_handlers_are_allowed(world: World) -> None:
    assert model(world, *CONTROLS, OPTION_ENTRYPOINT="djl_python.huggingface").entry_point == "djl_python.huggingface"
    assert model(world, *CONTROLS, argument=str(checkpoint(world))).entry_point == "model.py"


@pytest.mark.parametrize("line", ["option.pythonExecutable=python3", "option.env=LD_PRELOAD=/tmp/x.so"])
def test_a_models_own_file_may_not_choose_what_runs_either(world: World, line: str) -> None:
    world.write("mine/serving.properties", f"option.entryPoint=djl_python.huggingface\n{line}\n")
    refused(world, SCRIPTS, line.split("=")[0])


def test_what_the_operator_sets_is_trusted(world: World) -> None:
    environ = {"OPTION_ENTRYPOINT": "djl_python.huggingface", "OPTION_ENV": "A=1"}
    assert model(world, SCRIPTS, **environ).environment == {"A": "1"}


def test_remote_code(world: World) -> None:
    refused(world, REMOTE_CODE, "HF_MODEL_TRUST_REMOTE_CODE: option.trust_remote_code=true",
            HF_MODEL_TRUST_REMOTE_CODE="True")  # fmt: skip


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.PT", "x.pth", "y.ckpt", "z.pkl"])
def test_pickles_in_the_model_directory(world: World, name: str) -> None:
    world.write(f"mine/below/{name}", "")
    refused(world, PICKLES, name)


def test_pickles_in_a_local_checkpoint(world: World) -> None:
    world.write("checkpoint/pytorch_model.bin", "")
    refused(world, PICKLES, "pytorch_model.bin", argument=str(checkpoint(world)))


def test_pickles_in_an_untrusted_channel_and_behind_a_link(world: World) -> None:
    world.write("elsewhere/x.pkl", "")
    (world.path / "channel").mkdir()
    (world.path / "channel" / "link").symlink_to(world.path / "elsewhere")
    (world.path / "elsewhere" / "loop").symlink_to(world.path / "channel")
    refused(world, PICKLES, "channel/link/x.pkl", SAGEMAKER_UNTRUSTED_CHANNELS=f"{world.path / 'channel'}, ")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tokenizer_config.json", json.dumps({"chat_template": "{{ x }}"})),
        ("chat_template.jinja", "{{ x }}"),
    ],
)
def test_chat_templates(world: World, file: str, text: str) -> None:
    directory = checkpoint(world)
    world.write(f"checkpoint/{file}", text)
    refused(world, CHAT_TEMPLATE, f"{file}, which brings a chat template", argument=str(directory))


def test_a_chat_template_by_option(world: World) -> None:
    refused(world, CHAT_TEMPLATE, "OPTION_CHAT_TEMPLATE: option.chat_template", OPTION_CHAT_TEMPLATE="{{ x }}")


def test_a_tokenizers_file_that_cannot_be_read_is_refused(world: World) -> None:
    world.write("mine/tokenizer_config.json", "{")
    with pytest.raises(ConfigurationError, match="cannot be searched for a chat template"):
        model(world, CHAT_TEMPLATE)


def test_a_model_may_not_lift_the_controls_for_its_own_processes(world: World) -> None:
    world.write("mine/serving.properties", "option.env=SAGEMAKER_SECURITY_CONTROLS=\n")
    with pytest.raises(ConfigurationError, match=r"option\.env changes variables of SageMaker's"):
        model(world, PICKLES)


def test_an_unknown_control_is_refused(world: World) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no control 'DISALLOW_PICKLES'; those there are: .*DISALLOW_PICKLE_F"
    ):
        model(world, "DISALLOW_PICKLES")


def test_secure_mode_without_controls_is_refused(world: World) -> None:
    with pytest.raises(ConfigurationError, match="says what it forbids, and it is not set"):
        world.model("mine", SAGEMAKER_SECURE_MODE="true")


def test_secure_mode_switched_off_lifts_them(world: World) -> None:
    assert model(world, SCRIPTS, SAGEMAKER_SECURE_MODE="false").entry_point == "model.py"


def test_a_channel_that_is_not_there_is_refused(world: World) -> None:
    with pytest.raises(ConfigurationError, match="/no/channel is not a directory"):
        model(world, PICKLES, SAGEMAKER_UNTRUSTED_CHANNELS="/no/channel")
