"""``bloomery ls``: the endpoints of a region."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from bloomery import cli
from bloomery.cli import human
from bloomery.cli.account import Account
from bloomery.sagemaker.operating.listing import Row, listing
from bloomery.sagemaker.operating.prices import Prices

_HEADERS = ("NAME", "STATUS", "AGE", "INSTANCES", "PER HOUR", "SO FAR", "EXPIRES IN")


def show(account: Account, every: bool, price_per_hour: float | None, as_json: bool) -> int:
    """Print them; the exit code."""
    now = datetime.now(UTC)
    with account.open() as session:
        found = listing(session, Prices(session, price_per_hour), now, every=every)
        region = session.region
    chosen = found.rows
    if as_json:
        print(human.as_json(chosen))
        return cli.OK
    if chosen:
        human.table(_HEADERS, [_cells(each, now) for each in chosen])
    else:
        print(f"no endpoint in {region}" + (" that bloomery made" if found.others else ""), file=sys.stderr)
    for reason in dict.fromkeys(
        one.price.source for each in chosen for one in each.instances if one.price.per_hour is None
    ):
        print(f"note: {reason}", file=sys.stderr)
    if found.others:
        print(f"{found.others} more, which bloomery did not make: --all lists them", file=sys.stderr)
    return cli.OK


def _cells(row: Row, now: datetime) -> tuple[str, ...]:
    instances = ", ".join(f"{each.instance_type or human.UNKNOWN} × {each.count}" for each in row.instances)
    return (
        row.name,
        row.status,
        human.span(row.age),
        instances,
        human.money(row.cost_per_hour),
        human.money(row.cost_so_far),
        _expiry(row.expires, now),
    )


def _expiry(expires: datetime | None, now: datetime) -> str:
    if expires is None:
        return "never"
    return human.span(expires - now) if expires > now else f"{human.span(now - expires)} ago"
