"""``bloomery cost``: an hour, a month, a thousand requests, a million tokens."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from bloomery import cli
from bloomery.cli import human
from bloomery.cli.account import Account
from bloomery.errors import ConfigurationError
from bloomery.sagemaker.operating.cost import Cost, Instances, per_hour, read_throughput
from bloomery.sagemaker.operating.description import existing
from bloomery.sagemaker.operating.listing import instances_of
from bloomery.sagemaker.operating.prices import Price, Prices


@dataclass(frozen=True)
class Wanted:
    """As the command line has it."""

    name: str | None
    instance_type: str | None
    instances: int
    price_per_hour: float | None
    report: str | None
    as_json: bool


def show(account: Account, wanted: Wanted) -> int:
    """Print it; the exit code is 1 when there is no price."""
    if (wanted.name is None) == (wanted.instance_type is None):
        raise ConfigurationError("give the name of an endpoint, or --instance-type: one of the two")
    throughput = read_throughput(Path(wanted.report)) if wanted.report else None
    instances = _instances(account, wanted)
    cost = Cost(per_hour(instances), throughput)
    if wanted.as_json:
        print(human.as_json(_document(instances, cost)))
    else:
        _print(instances, cost)
    unknown = dict.fromkeys(each.price.source for each in instances if each.per_hour is None)
    for reason in unknown:
        print(f"note: {reason}", file=sys.stderr)
    return cli.REFUSED if unknown else cli.OK


def _instances(account: Account, wanted: Wanted) -> tuple[Instances, ...]:
    if wanted.instance_type is not None and wanted.price_per_hour is not None:  # arithmetic needs no account
        return (Instances(wanted.instance_type, wanted.instances, Price(wanted.price_per_hour, "as you say")),)
    with account.open() as session:
        prices = Prices(session, wanted.price_per_hour)
        if wanted.instance_type is not None:
            return (Instances(wanted.instance_type, wanted.instances, prices.of(wanted.instance_type)),)
        assert wanted.name is not None
        return instances_of(existing(session, wanted.name), prices)


def _document(instances: tuple[Instances, ...], cost: Cost) -> dict[str, object]:
    return {
        "instances": instances,
        "per_hour": cost.per_hour,
        "per_month": cost.per_month,
        "throughput": cost.throughput,
        "per_thousand_requests": cost.per_thousand_requests,
        "per_million_output_tokens": cost.per_million_tokens,
    }


def _print(instances: tuple[Instances, ...], cost: Cost) -> None:
    for each in instances:
        price = f"{human.money(each.price.per_hour)} an hour each ({each.price.source})"
        print(f"{each.count} × {each.instance_type or human.UNKNOWN}: {price}")
    lines = [("per hour", cost.per_hour, ""), ("per month", cost.per_month, "running all the time")]
    if rates := cost.throughput:
        if rates.requests_per_s is not None:
            lines += [("per 1,000 requests", cost.per_thousand_requests, f"at {rates.requests_per_s:.4g} a second")]
        if rates.output_tokens_per_s is not None:
            lines += [("per million tokens", cost.per_million_tokens, f"at {rates.output_tokens_per_s:.4g} a second")]
    for what, amount, how in lines:
        print(f"{what:<20}{human.money(amount):>12}  {how}".rstrip())
