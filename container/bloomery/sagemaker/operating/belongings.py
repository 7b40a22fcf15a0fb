"""What belongs to an endpoint, and who else uses it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bloomery.errors import AccessError
from bloomery.sagemaker.operating.absence import ask
from bloomery.sagemaker.operating.description import Component, Description, components, describe, models_of
from bloomery.sagemaker.operating.scaling_targets import ScalingTarget, registered
from bloomery.sagemaker.session import Session


@dataclass(frozen=True)
class Belongings:
    """Of the endpoint ``name``, which may be gone itself. ``notes``: what could not be looked at."""

    name: str
    endpoint: Description | None
    components: tuple[Component, ...]
    configs: tuple[str, ...]
    models: tuple[str, ...]
    scaling: tuple[ScalingTarget, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Users:
    """Which other endpoints use a configuration or a model, by its name."""

    configs: Mapping[str, list[str]] = field(default_factory=dict)
    models: Mapping[str, list[str]] = field(default_factory=dict)


def of(session: Session, name: str) -> Belongings:
    """All that is there. Of an endpoint that is gone: what bears its name, as ``bloomery deploy`` gives it.

    Raises SageMakerError.
    """
    endpoint = describe(session, name)
    notes: list[str] = []
    owned = tuple(components(session, name)) if endpoint is not None else ()
    configs = endpoint.configs if endpoint is not None else (name,)
    found = {config: _models(session, config) for config in configs}
    models = dict.fromkeys(model for each in found.values() for model in each or ())
    models |= dict.fromkeys(each.model for each in owned if each.model)
    if not models and ask(session, "sagemaker", "DescribeModel", ModelName=name) is not None:
        models[name] = None
    try:
        scaling = tuple(registered(session, name, [each.name for each in owned]))
    except AccessError as error:  # an endpoint costs money: it has to go without that
        scaling, notes = (), [f"scaling policies and alarms are left as they are: {error}"]
    there = tuple(config for config in configs if found[config] is not None)
    return Belongings(name, endpoint, owned, there, tuple(models), scaling, tuple(notes))


def users(session: Session, except_for: Collection[str]) -> Users:
    """What all other endpoints of the region use. Those that are being deleted count no more. Raises SageMakerError."""
    configs: dict[str, list[str]] = defaultdict(list)
    models: dict[str, list[str]] = defaultdict(list)
    for name in _other_endpoints(session, except_for):
        endpoint = describe(session, name)
        if endpoint is None or endpoint.status == "Deleting":
            continue
        used = {model for config in endpoint.configs for model in _models(session, config) or ()}
        used |= {each.model for each in components(session, name) if each.model}
        for config in endpoint.configs:
            configs[config].append(name)
        for model in used:
            models[model].append(name)
    return Users(configs, models)


def _other_endpoints(session: Session, except_for: Collection[str]) -> Iterator[str]:
    for page in session.pages("sagemaker", "ListEndpoints"):
        for each in page["Endpoints"]:
            if each["EndpointName"] not in except_for and each["EndpointStatus"] != "Deleting":
                yield each["EndpointName"]


def _models(session: Session, config: str) -> list[str] | None:
    """The models of a configuration; None when it is gone."""
    found = ask(session, "sagemaker", "DescribeEndpointConfig", EndpointConfigName=config)
    if found is None:
        return None
    variants = (*found.get("ProductionVariants", ()), *found.get("ShadowProductionVariants", ()))
    return [model for each in variants for model in models_of(each)]


def model_data(session: Session, model: str) -> set[str]:
    """Every s3:// address that a model names: its archive or prefix, and in its environment. Raises SageMakerError."""
    found = ask(session, "sagemaker", "DescribeModel", ModelName=model) or {}
    containers = [*([found["PrimaryContainer"]] if "PrimaryContainer" in found else ()), *found.get("Containers", ())]
    return {uri for each in containers for uri in _addresses(each)}


def _addresses(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value.startswith("s3://"):
            yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _addresses(each)
    elif isinstance(value, list):
        for each in value:
            yield from _addresses(each)
