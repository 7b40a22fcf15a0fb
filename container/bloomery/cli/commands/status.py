"""``bloomery status``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from bloomery.cli.arguments import EndpointUrl, Json, Profile, Region, Target


def status(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An endpoint.")],
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again until nothing is going on.")] = False,
    json: Json = False,
    target: Target = None,
    region: Region = None,
    profile: Profile = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """An endpoint's status, since when, its instances, last log lines, and how it did in the last 15 minutes.

    Exit codes: 0 it is in service; 1 it has failed, or there is none; 3 something is going on.
    """
    from bloomery.cli import showing
    from bloomery.cli.account import Account

    raise typer.Exit(showing.status(Account(target, region, profile, endpoint_url), name, watch, json))
