"""``bloomery cost``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from bloomery.cli.arguments import EndpointUrl, Json, PricePerHour, Profile, Region, Target


def cost(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="An endpoint that there is.")] = None,
    instance_type: Annotated[str | None, typer.Option(metavar="TYPE", help="Instead: so many instances of it.")] = None,
    instances: Annotated[int, typer.Option(min=1, help="How many, with --instance-type.")] = 1,
    price_per_hour: PricePerHour = None,
    report: Annotated[
        str | None, typer.Option(metavar="FILE.json", help="What `bloomery bench` has measured on these instances.")
    ] = None,
    json: Json = False,
    target: Target = None,
    region: Region = None,
    profile: Profile = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """What an endpoint costs per hour, and per request and token at a measured throughput."""
    from bloomery.cli import costing
    from bloomery.cli.account import Account

    wanted = costing.Wanted(name, instance_type, instances, price_per_hour, report, json)
    raise typer.Exit(costing.show(Account(target, region, profile, endpoint_url), wanted))
