"""Until an endpoint has scaled."""

from __future__ import annotations

import time
from collections.abc import Callable

from bloomery.errors import SageMakerError
from bloomery.sagemaker.operating.description import components, existing
from bloomery.sagemaker.session import Session

PATIENCE = 3600.0  # seconds: SageMaker takes a quarter of an hour before it ends what has nothing to do
_PERIOD, _PERIOD_HERE = 5.0, 0.2  # seconds between two looks, at AWS and at an emulator


def until_count(
    session: Session,
    name: str,
    wanted: int,
    *,
    patience: float = PATIENCE,
    seen: Callable[[str], object] = lambda line: None,
) -> None:
    """Return when the endpoint ``name`` has ``wanted`` instances, or copies where it has inference components.

    ``seen`` is told of each change. Raises SageMakerError; also when a component fails, or after ``patience`` seconds.
    """
    began, last = time.monotonic(), -1
    while True:
        count, what = _count(session, name)
        if count != last:
            seen(f"{name}: {count} {what}, {wanted} wanted, after {time.monotonic() - began:.0f} s")
            last = count
        if count == wanted:
            return
        if time.monotonic() - began > patience:
            raise SageMakerError(
                f"endpoint {name} has {count} {what}, not {wanted}, after {patience:.0f} s: "
                f"`bloomery autoscale {name} --show` tells what was tried"
            )
        time.sleep(_PERIOD_HERE if session.is_emulator else _PERIOD)


def _count(session: Session, name: str) -> tuple[int, str]:
    owned = [each for each in components(session, name) if each.base is None]
    for each in owned:
        if each.status == "Failed":
            raise SageMakerError(f"inference component {each.name} has failed: {each.failure or 'no reason is given'}")
    if owned:
        return sum(each.copies for each in owned), "copies"
    return sum(each.there for each in existing(session, name).variants), "instances"
