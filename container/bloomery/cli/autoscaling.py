"""``bloomery autoscale``: let an endpoint scale, see how it does, end it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bloomery import cli
from bloomery.cli import account, human
from bloomery.cli.account import Account
from bloomery.errors import ConfigurationError
from bloomery.sagemaker.operating import autoscaling
from bloomery.sagemaker.operating.autoscaling import Scaled
from bloomery.sagemaker.operating.scaling_requests import Bounds
from bloomery.sagemaker.session import Session


@dataclass(frozen=True)
class Wanted:
    """As the command line has it."""

    name: str
    least: int | None
    most: int | None
    concurrency: float | None
    scale_in_cooldown: int | None
    scale_out_cooldown: int | None
    only: str | None
    show: bool
    off: bool
    dry_run: bool
    as_json: bool


def autoscale(given: Account, wanted: Wanted) -> int:
    """Do it, or print its requests; the exit code."""
    bounds = _bounds(wanted)
    with given.open() as session:
        if bounds is not None:
            _scale(session, wanted, bounds)
        elif wanted.off:
            requests = autoscaling.ending(session, wanted.name)
            if wanted.dry_run:
                account.show(requests)
                return cli.OK
            for request in requests:
                session.send(request)
            print(f"{wanted.name}: " + ("scales no more" if requests else "nothing of it scaled"))
        else:
            _show(autoscaling.shown(session, wanted.name), wanted)
    return cli.OK


def _bounds(wanted: Wanted) -> Bounds | None:
    given = {"--min": wanted.least, "--max": wanted.most, "--concurrency": wanted.concurrency}
    missing = [name for name, value in given.items() if value is None]
    if (len(missing) < len(given)) + wanted.off + wanted.show != 1:
        raise ConfigurationError("give --min, --max and --concurrency; or --show; or --off")
    if len(missing) == len(given):
        return None
    if wanted.least is None or wanted.most is None or wanted.concurrency is None:
        raise ConfigurationError(
            f"{' and '.join(missing)} missing: for instance --min 1 --max 4 --concurrency 8 keeps about 8 requests in "
            "flight per instance"
        )
    return Bounds(wanted.least, wanted.most, wanted.concurrency, wanted.scale_in_cooldown, wanted.scale_out_cooldown)


def _scale(session: Session, wanted: Wanted, bounds: Bounds) -> None:
    plan = autoscaling.planned(session, wanted.name, bounds, wanted.only)
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)
    if wanted.dry_run:
        account.show(plan.requests())
        return
    autoscaling.put_in_force(session, plan)
    for each in plan.scalings:
        wakes = "; an alarm wakes it from 0, which takes minutes" if each.wake else ""
        what = f"{bounds.least} to {bounds.most}, {bounds.concurrency:g} requests each"
        print(f"{each.resource}: {what}{wakes}")


def _show(found: list[Scaled], wanted: Wanted) -> None:
    if wanted.as_json:
        print(human.as_json(found))
        return
    if not found:
        print(f"nothing of {wanted.name} scales", file=sys.stderr)
    for each in found:
        print(f"{each.target.resource}: {each.count} now, {each.target.least} to {each.target.most}")
        for policy in each.target.policies:
            print(f"  policy {policy.name}: {', '.join(_policy(policy.config))}")
        for activity in each.activities:
            print(f"  {activity.at.astimezone():%Y-%m-%d %H:%M:%S}  {activity.status}: {activity.what}")
            print(f"    {activity.cause}")


def _policy(config: Mapping[str, Any]) -> Iterator[str]:
    metric = config.get("PredefinedMetricSpecification") or config.get("CustomizedMetricSpecification") or {}
    if "TargetValue" in config:
        yield f"{metric.get('PredefinedMetricType') or metric.get('MetricName')} at {config['TargetValue']:g}"
    for step in config.get("StepAdjustments") or ():
        yield f"{step['ScalingAdjustment']:+d} on an alarm"
    for name, what in (("ScaleInCooldown", "in"), ("ScaleOutCooldown", "out"), ("Cooldown", "any")):
        if name in config:
            yield f"cooldown {what} {config[name]} s"
