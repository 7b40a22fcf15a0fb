"""Settings that do not go together are told of, with their place."""

from __future__ import annotations

import re

import pytest
from tests.support.settings_world import World


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("option.rolling_batch=auto\nbatch_size=4", "batch_size=4 has no effect: the rolling batch joins"),
        ("option.async_mode=true\nbatch_size=4", "batch_size=4 has no effect: with option.async_mode"),
        ("option.rolling_batch=auto\noption.async_mode=true", "the rolling batch is not used"),
        ("option.max_rolling_batch_size=4", "has no effect without a handler of your own and option.rolling_batch"),
        ("option.max_rolling_batch_prefill_tokens=4", "has no effect without a handler of your own"),
        ("batch_size=4\njob_queue_size=2", "is never reached: job_queue_size=2"),
        ("batch_size=4\noption.enable_streaming=true", "contradicts .*batch_size=4: the answers of a batch are not"),
        (
            "engine=DeepSpeed\noption.entryPoint=djl_python.deepspeed\noption.device_map=auto",
            "option.device_map=auto has no effect",
        ),
        (
            "option.entryPoint=djl_python.huggingface\noption.model_id=a/b\noption.kernel_inject=true",
            "option.kernel_inject=true has no effect: it is of engine=DeepSpeed",
        ),
    ],
)
def test_what_makes_another_setting_pointless_is_a_notice(world: World, lines: str, words: str) -> None:
    world.write("mine/serving.properties", lines)
    (notice,) = world.settings("mine").notices
    assert notice.startswith("serving.properties line ")
    assert re.search(words, notice)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            "option.entryPoint=djl_python.huggingface\noption.model_id=a/b\noption.tensor_parallel_degree=2",
            "engine=DeepSpeed splits each layer",
        ),
        ("option.predict_timeout=61", "InvokeEndpoint gives up after 60 s"),
        ("option.model_loading_timeout=4000", "SageMaker waits 3600 s"),
    ],
)
def test_what_is_right_and_may_surprise_is_a_remark(world: World, lines: str, words: str) -> None:
    world.write("mine/serving.properties", lines)
    settings = world.settings("mine")
    (remark,) = settings.remarks
    assert words in remark
    assert settings.notices == []


def test_defaults_contradict_nothing(world: World) -> None:
    settings = world.settings("mine")
    assert (settings.notices, settings.remarks) == ([], [])
