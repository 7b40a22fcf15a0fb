from __future__ import annotations

import dataclasses

import pytest
from botocore.session import Session

from bloomery.errors import ConfigurationError
from bloomery.sagemaker.emulator.invoking.limits import Limits


def test_the_defaults_are_those_of_the_service_model() -> None:
    shapes = Session().get_service_model("sagemaker-runtime")
    assert Limits().payload == shapes.shape_for("BodyBlob").metadata["max"]
    assert Limits().inline_payload == shapes.shape_for("AsyncBodyBlob").metadata["max"]
    assert Limits().waiting == shapes.shape_for("RequestTTLSecondsHeader").metadata["max"]


def test_each_can_be_another() -> None:
    assert Limits.read(["stream=900.5", "payload=25000000"]) == Limits(stream=900.5, payload=25_000_000)
    for field in dataclasses.fields(Limits):
        assert getattr(Limits.read([f"{field.name}=7"]), field.name) == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("streams=1", "there is payload, .*, not 'streams'"),
        ("stream", "'' is no number"),
        ("payload=1.5", "'1.5' is no number"),
        ("stream=0", "a limit is above 0"),
        ("stream=nan", "a limit is above 0"),
        ("invocation=-1", "a limit is above 0"),
    ],
)
def test_a_wrong_one_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Limits.read([text])
