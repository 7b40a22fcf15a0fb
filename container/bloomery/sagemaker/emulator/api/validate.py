"""Requests against botocore's own model of SageMaker: what a client does not check, AWS does, and so do we.

A client checks names, types, what is required, and lower limits; not enumerations, upper limits, patterns. Where AWS
would list several violations in one message, so do we.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.model import ServiceModel, Shape

from bloomery.sagemaker.constraints import broken
from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.api.aws_error import AwsError

_KINDS: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "blob": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float),
    "boolean": (bool,),
}


@functools.cache
def service(name: str = "sagemaker") -> ServiceModel:
    """SageMaker, or its runtime, as botocore describes it. Some 0.1 s the first time."""
    return botocore.session.Session().get_service_model(name)


def check(operation: str, parameters: object, of: str = "sagemaker") -> dict[str, Any]:
    """``parameters`` of the call of the service ``of``, which are an object and fit the model; otherwise AwsError."""
    shape = service(of).operation_model(operation).input_shape
    parameters = _without_nulls(parameters)
    if not isinstance(parameters, dict):
        raise AwsError(words.NOT_JSON.format(reason="it is not an object"), "SerializationException")
    violations = list(_violations(shape, parameters, ""))
    if violations:
        count = len(violations)
        raise AwsError(words.DETECTED.format(count=count, s="s" if count > 1 else "", details="; ".join(violations)))
    return parameters


def _without_nulls(value: Any) -> Any:
    """Members that are null are members that are not there: some SDKs send them."""
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    _check_type(shape, value, path)
    if shape.type_name == "structure":
        yield from _of_structure(shape, value, path)
        return
    constraints = list(_constraints(shape, value))
    if shape.type_name == "map":
        for sentence, each, items in (
            (words.MAP_KEYS, shape.key, value.keys()),
            (words.MAP_VALUES, shape.value, value.values()),
        ):
            for item in items:
                _check_type(each, item, path)
            if any(True for item in items for _ in _constraints(each, item)):
                constraints.append(sentence.format(constraints=", ".join(_all_constraints(each))))
    for constraint in constraints:
        yield words.VIOLATION.format(value=_shown(value), path=path, constraint=constraint)
    if shape.type_name == "list":
        for number, item in enumerate(value, 1):
            yield from _violations(shape.member, item, f"{path}.{number}.member")


def _of_structure(shape: Shape, value: dict[str, Any], path: str) -> Iterator[str]:
    for name in value:
        if name not in shape.members:
            known = ", ".join(shape.members)
            raise AwsError(words.UNKNOWN_MEMBER.format(name=name, path=path or "the request", known=known))
    for name in shape.required_members:
        if name not in value:
            place = _below(path, name)
            yield words.VIOLATION.format(value="null", path=place, constraint=words.NOT_NULL.format())
    for name, member in shape.members.items():
        if name in value:
            yield from _violations(member, value[name], _below(path, name))


def _below(path: str, name: str) -> str:
    """AWS writes the names in its messages with a small first letter."""
    small = name[0].lower() + name[1:]
    return f"{path}.{small}" if path else small


def _check_type(shape: Shape, value: Any, path: str) -> None:
    wanted = _KINDS.get(shape.type_name, (object,))
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise AwsError(
            words.WRONG_TYPE.format(found=type(value).__name__, path=path, expected=shape.type_name),
            "SerializationException",
        )


def _constraints(shape: Shape, value: Any) -> Iterator[str]:
    """What ``value`` does not keep to."""
    for constraint in broken(shape, value):
        match constraint.kind:
            case "shortest":
                yield words.LONG_ENOUGH.format(limit=constraint.limit)
            case "longest":
                yield words.SHORT_ENOUGH.format(limit=constraint.limit)
            case "least":
                yield words.LARGE_ENOUGH.format(limit=constraint.limit)
            case "most":
                yield words.SMALL_ENOUGH.format(limit=constraint.limit)
            case "one of":
                yield words.IN_ENUM.format(values=", ".join(constraint.limit))
            case "pattern":
                yield words.MATCHES.format(pattern=constraint.limit)


def _all_constraints(shape: Shape) -> Iterator[str]:
    """What AWS lists when a key or a value of a map is wrong: everything that is asked of it."""
    limits = shape.metadata
    if "max" in limits:
        yield words.SHORT_ENOUGH.format(limit=limits["max"])
    if "min" in limits:
        yield words.LONG_ENOUGH.format(limit=limits["min"])
    if "pattern" in limits:
        yield words.MATCHES.format(pattern=limits["pattern"])


def _shown(value: Any) -> str:
    """As Java prints it, between quotes."""
    return f"'{_java(value)}'"


def _java(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}={_java(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_java(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
