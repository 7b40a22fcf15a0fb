"""``bloomery ls``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from bloomery.cli.arguments import EndpointUrl, Json, PricePerHour, Profile, Region, Target


def ls(
    every: Annotated[bool, typer.Option("--all", help="Also endpoints that bloomery did not make.")] = False,
    price_per_hour: PricePerHour = None,
    json: Json = False,
    target: Target = None,
    region: Region = None,
    profile: Profile = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """List the endpoints of a region: status, age, instances, cost so far, expiry."""
    from bloomery.cli import listing
    from bloomery.cli.account import Account

    raise typer.Exit(listing.show(Account(target, region, profile, endpoint_url), every, price_per_hour, json))
