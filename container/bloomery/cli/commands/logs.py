"""``bloomery logs``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from bloomery.cli.arguments import EndpointUrl, Profile, Region, Target


def logs(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An endpoint; its log stays when it is gone.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is printed from now on.")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="A time ago (90s, 10m, 2h, 1d), or a moment (2026-11-24T15:00).")
    ] = None,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=0, metavar="N", help="The last N lines.  [default: 100, or all]")
    ] = None,
    grep: Annotated[str | None, typer.Option(metavar="REGEX", help="Only lines in which it is found.")] = None,
    target: Target = None,
    region: Region = None,
    profile: Profile = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """What an endpoint's containers print, all instances together, by time."""
    from bloomery.cli import following
    from bloomery.cli.account import Account

    wanted = following.Wanted(name, follow, since, tail, grep)
    raise typer.Exit(following.logs(Account(target, region, profile, endpoint_url), wanted))
