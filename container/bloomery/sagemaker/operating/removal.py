"""Remove an endpoint and everything that belongs to it, and nothing that another endpoint uses.

First a plan, from what there is; then its steps, in an order in which each can succeed: scaling (it would make what is
being removed), inference components (adapters before their base), the endpoint, its configurations, its models.
A step whose object is gone already has succeeded, so that a removal that broke off is finished by doing it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bloomery.errors import AccessError, CallError, RemovalError, SageMakerError
from bloomery.sagemaker.operating import belongings
from bloomery.sagemaker.operating.absence import ask, is_absence
from bloomery.sagemaker.operating.belongings import Belongings, Users
from bloomery.sagemaker.operating.description import CHANGING
from bloomery.sagemaker.request import Request
from bloomery.sagemaker.session import Session

PATIENCE = 3600.0  # seconds for an endpoint to go: one that is Creating may have to be waited for first
_GRACE = 60.0  # seconds
_PERIOD, _PERIOD_HERE = 5.0, 0.2  # seconds between two looks, at AWS and at an emulator


@dataclass(frozen=True)
class Step:
    """``what`` is "endpoint NAME" or the like. ``look``: what describes it; it takes a while to go."""

    what: str
    request: Request
    look: Request | None = None


@dataclass(frozen=True)
class Kept:
    """Something that is not removed, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Removal:
    """What a removal does (``steps``, ``kept``), and has done: ``removed`` and ``absent`` name ``what`` of its steps.
    Both are empty after a dry run. ``models`` are those that go.
    """

    name: str
    steps: tuple[Step, ...]
    models: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()
    notes: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every step was taken."""
        return len(self.removed) + len(self.absent) == len(self.steps)


def remove(
    session: Session,
    name: str,
    *,
    dry_run: bool = False,
    keep_model: bool = False,
    wait: bool = True,
    patience: float = PATIENCE,
    seen: Callable[[str], object] = lambda line: None,
) -> Removal:
    """Remove the endpoint called ``name``: itself, and its scaling, components, configurations and models.

    As ``planned`` and, unless it is a ``dry_run``, ``perform``. Nothing there is no error: ``steps`` is empty then.
    Raises SageMakerError; RemovalError says what is left.
    """
    plan = planned(session, name, keep_model=keep_model)
    return plan if dry_run else perform(session, plan, wait=wait, patience=patience, seen=seen)


def perform(
    session: Session,
    plan: Removal,
    *,
    wait: bool = True,
    patience: float = PATIENCE,
    seen: Callable[[str], object] = lambda line: None,
) -> Removal:
    """Take the steps of ``plan``; ``seen`` is told of each.

    With ``wait`` it returns when the endpoint is gone, at most ``patience`` seconds later; without, when that is on its
    way (components are waited for in any case: an endpoint with components cannot be deleted). Raises RemovalError.
    """
    removed: list[str] = []
    absent: list[str] = []
    notes = list(plan.notes)
    for number, step in enumerate(plan.steps):
        try:
            was_there = take(session, step, time.monotonic() + patience, wait, seen)
        except SageMakerError as error:
            if isinstance(error, AccessError) and step.request.service != "sagemaker":
                notes.append(f"{step.what} could not be removed: {error}")  # the endpoint costs money: it goes
                seen(notes[-1])
                continue
            left = ", ".join(each.what for each in plan.steps[number:])
            done = f"; removed: {', '.join(removed)}" if removed else ""
            raise RemovalError(f"{step.what} cannot be removed: {error}{done}; left: {left}") from error
        (removed if was_there else absent).append(step.what)
        done_with = "removed" if wait or step.request.operation != "DeleteEndpoint" else "being deleted"
        seen(f"{step.what}: {done_with if was_there else 'gone already'}")
    return replace(plan, removed=tuple(removed), absent=tuple(absent), notes=tuple(notes))


def planned(session: Session, name: str, *, keep_model: bool = False, leaving: Collection[str] = ()) -> Removal:
    """What has to be done to remove the endpoint, and what stays because others use it; those in ``leaving`` count no
    more. Raises SageMakerError.
    """
    found = belongings.of(session, name)
    kept: list[Kept] = []
    notes = list(found.notes)
    used = Users()
    if found.configs or found.models:
        try:
            used = belongings.users(session, except_for={name, *leaving})
        except AccessError as error:  # whether somebody uses them is not known, so they stay
            notes.append(f"configurations and models are kept: who else uses them cannot be looked up: {error}")
            everything = {each: ["another endpoint, perhaps"] for each in (*found.configs, *found.models)}
            used = Users(everything, everything)
    configs = _unused("endpoint configuration", found.configs, used.configs, kept)
    if keep_model:
        kept += [Kept(f"model {each}", "you asked for that") for each in found.models]
        models: list[str] = []
    else:
        models = _unused("model", found.models, used.models, kept)
    for target in found.scaling:
        for alarm in (each for policy in target.policies for each in policy.shared_alarms):
            kept.append(Kept(f"alarm {alarm}", "it has other actions, too"))
    return Removal(name, tuple(_steps(found, configs, models)), tuple(models), tuple(kept), tuple(notes))


def _unused(what: str, names: Sequence[str], used: Mapping[str, Sequence[str]], kept: list[Kept]) -> list[str]:
    for name in names:
        if by := used.get(name):
            kept.append(Kept(f"{what} {name}", f"used by {', '.join(by)}"))
    return [name for name in names if name not in used]


def _steps(found: Belongings, configs: Sequence[str], models: Sequence[str]) -> Iterator[Step]:
    for target in found.scaling:
        for request in target.removals():
            subject = "scaling of" if request.service == "application-autoscaling" else "alarms of"
            yield Step(f"{subject} {target.resource}", request)
    for component in sorted(found.components, key=lambda each: each.base is None):
        given = {"InferenceComponentName": component.name}
        yield Step(
            f"inference component {component.name}",
            Request("sagemaker", "DeleteInferenceComponent", given),
            Request("sagemaker", "DescribeInferenceComponent", given),
        )
    if found.endpoint is not None:
        given = {"EndpointName": found.name}
        yield Step(
            f"endpoint {found.name}",
            Request("sagemaker", "DeleteEndpoint", given),
            Request("sagemaker", "DescribeEndpoint", given),
        )
    for config in configs:
        request = Request("sagemaker", "DeleteEndpointConfig", {"EndpointConfigName": config})
        yield Step(f"endpoint configuration {config}", request)
    for model in models:
        yield Step(f"model {model}", Request("sagemaker", "DeleteModel", {"ModelName": model}))


def take(session: Session, step: Step, deadline: float, wait: bool, seen: Callable[[str], object]) -> bool:
    """Take one step; whether what it removes was there. With ``wait`` return when it is gone. ``deadline``: of the
    monotonic clock. Raises SageMakerError."""
    waited = False
    while True:
        try:
            session.send(step.request)
            break
        except CallError as error:
            if is_absence(error):
                return waited
            status = _status(_described(session, step))
            if status not in CHANGING or status == "Deleting" or not wait:
                raise
            if not waited:
                seen(f"{step.what} is {status}, and SageMaker does not delete it now: waiting ({error.reason})")
            waited = True
            _pause(session, step, deadline, status)
    # Components have to be gone before their endpoint can be deleted.
    if step.look is not None and (wait or step.request.operation == "DeleteInferenceComponent"):
        _gone(session, step, deadline)
    return True


def _gone(session: Session, step: Step, deadline: float) -> None:
    """Wait until it is. Raises CallError when it fails to go."""
    began, going = time.monotonic(), False
    while found := _described(session, step):
        status = _status(found)
        going = going or status == "Deleting"
        # What had failed before may be described as it was for a moment.
        if status == "Failed" and (going or time.monotonic() - began > _GRACE):
            raise CallError(f"its deletion has failed: {found.get('FailureReason', 'no reason is given')}")
        _pause(session, step, deadline, status)


def _described(session: Session, step: Step) -> Mapping[str, Any] | None:
    """None when it is gone, or cannot be looked at."""
    return ask(session, step.look.service, step.look.operation, **step.look.parameters) if step.look else None


def _status(found: Mapping[str, Any] | None) -> str:
    status: str = (found or {}).get("EndpointStatus") or (found or {}).get("InferenceComponentStatus") or "gone"
    return status


def _pause(session: Session, step: Step, deadline: float, status: str) -> None:
    if time.monotonic() > deadline:
        raise CallError(f"{step.what} is still {status}, longer than it should be; it may yet go")
    time.sleep(_PERIOD_HERE if session.is_emulator else _PERIOD)
