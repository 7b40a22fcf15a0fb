"""``bloomery deploy``: an endpoint, and what happens until it serves."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from bloomery import cli
from bloomery.cli.account import Account, confirm, show
from bloomery.cli.human import money
from bloomery.cli.interruption import terminable
from bloomery.errors import ConfigurationError, EndpointFailedError, SageMakerError
from bloomery.sagemaker.deploying.deployment import Deployment
from bloomery.sagemaker.deploying.ordering import Order, Prepared, carry_out, prepare
from bloomery.sagemaker.deploying.telling import Teller
from bloomery.sagemaker.operating.prices import Prices
from bloomery.sagemaker.session import DEFAULT_REGION, DEFAULT_URL, Session


def deploy(account: Account, wanted: Deployment, order: Order, price: float | None, dry_run: bool, yes: bool) -> int:
    """Make it, or print the requests; the exit code."""
    with terminable(), account.open() as session:
        prepared = prepare(session, wanted)
        for each in prepared.notes:
            print(f"note: {each}", file=sys.stderr)
        if dry_run:
            show(prepared.requests())
            return cli.OK
        if not _agreed(session, prepared, price, yes):
            print("nothing was made", file=sys.stderr)
            return cli.REFUSED
        return _made(session, prepared, order)


def _made(session: Session, prepared: Prepared, order: Order) -> int:
    name = prepared.wanted.name
    with Teller() as tell:
        try:
            carry_out(session, prepared, tell, order)
        except EndpointFailedError as error:
            tell.stop()
            print(f"bloomery: {error}", file=sys.stderr)
            if not order.rollback:
                print(f"remove it: bloomery delete {name}{_where(session)}", file=sys.stderr)
            return cli.MODEL_FAILED
        except (KeyboardInterrupt, SageMakerError):
            tell.stop()
            if tell.left:
                sure = f"Endpoint {name}" in tell.left
                print(
                    f"endpoint {name} goes on without this command. "
                    if sure
                    else f"left: {', '.join(sorted(tell.left))}, and perhaps an endpoint. ",
                    f"Look: bloomery status {name}{_where(session)}; delete: bloomery delete {name}{_where(session)}",
                    sep="",
                    file=sys.stderr,
                )
            raise
    if not order.wait:
        print(f"endpoint {name} is asked for; look: bloomery status {name}{_where(session)}")
        return cli.OK
    print(f"endpoint {name} is InService after {tell.elapsed:.0f} s")
    component = f" --component {name}" if prepared.wanted.component else ""
    print(f"  ask:    bloomery invoke {name} 'To be, or not'{component}{_where(session)}")
    print(f"  remove: bloomery delete {name}{_where(session)}")
    return cli.OK


def pairs(given: Iterable[str] | None, option: str) -> dict[str, str]:
    """``NAME=VALUE`` each. Raises ConfigurationError."""
    found: dict[str, str] = {}
    for each in given or ():
        name, equals, value = each.partition("=")
        if not (name and equals):
            raise ConfigurationError(f"{option} takes NAME=VALUE; got {each!r}")
        if name in found:
            raise ConfigurationError(f"{option} {name} is given twice: {found[name]!r} and {value!r}")
        found[name] = value
    return found


def only_with(option: str, is_given: bool, others: Mapping[str, bool]) -> None:
    """Raise ConfigurationError for ``others`` that are given and mean nothing without ``option``."""
    alone = [other for other, given in others.items() if given]
    if alone and not is_given:
        raise ConfigurationError(f"{', '.join(alone)} means nothing without {option}")


def _agreed(session: Session, prepared: Prepared, price: float | None, yes: bool) -> bool:
    """Whether the user wants to pay. An emulator costs nothing."""
    wanted = prepared.wanted
    prices = Prices(session, price)
    for each in wanted.instance_types:
        found = prices.of(each)
        hour = None if found.per_hour is None else found.per_hour * wanted.instance_count
        print(
            f"{wanted.instance_count} × {each}: {money(hour)} per hour ({found.source})"
            + ("; this emulator costs nothing" if session.is_emulator else ""),
            file=sys.stderr,
        )
    if session.is_emulator:
        return True
    return confirm(f"Make endpoint {wanted.name} in {session.region}, account {session.account}?", yes)


def _where(session: Session) -> str:
    """What the next command needs to reach the same place."""
    if not session.is_emulator:
        return f" --region {session.region}"
    url = "" if session.url == DEFAULT_URL else f" --endpoint-url {session.url}"
    region = "" if session.region == DEFAULT_REGION else f" --region {session.region}"
    return f" --target local{url}{region}"
