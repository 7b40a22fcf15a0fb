"""The parameters of a sagemaker-runtime call, out of its HTTP request, checked against botocore's model of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from bloomery.sagemaker.emulator.api import validate
from bloomery.sagemaker.emulator.api.aws_error import AwsError

_RUNTIME = "sagemaker-runtime"


def read(operation: str, endpoint: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The parameters by their names in the API, all but the body. Raises AwsError."""
    found: dict[str, Any] = {"EndpointName": endpoint}
    for member, header, is_number in _in_headers(operation):
        value = headers.get(header)
        if value is not None:
            found[member] = int(value) if is_number and value.isdecimal() else value
    try:
        validate.check(operation, found | {"Body": ""}, _RUNTIME)
    except AwsError as error:  # this service calls it otherwise
        raise AwsError(str(error), "ValidationError") from error
    return found


@functools.cache
def _in_headers(operation: str) -> list[tuple[str, str, bool]]:
    members = validate.service(_RUNTIME).operation_model(operation).input_shape.members
    return [
        (name, shape.serialization["name"], shape.type_name == "integer")
        for name, shape in members.items()
        if shape.serialization.get("location") == "header"
    ]
