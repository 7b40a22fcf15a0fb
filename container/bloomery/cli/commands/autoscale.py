"""``bloomery autoscale``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from bloomery.cli.arguments import DryRun, EndpointUrl, Json, Profile, Region, Target


def autoscale(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An endpoint.")],
    least: Annotated[int | None, typer.Option("--min", metavar="N", help="Fewest instances or copies.")] = None,
    most: Annotated[int | None, typer.Option("--max", metavar="N", help="Most of them.")] = None,
    concurrency: Annotated[
        float | None,
        typer.Option(metavar="N", help="Requests in flight per instance or copy to aim at; asynchronous: waiting."),
    ] = None,
    scale_in_cooldown: Annotated[
        int | None, typer.Option(min=0, metavar="SECONDS", help="Between two decreases.  [default: AWS's, 300]")
    ] = None,
    scale_out_cooldown: Annotated[
        int | None, typer.Option(min=0, metavar="SECONDS", help="Between two increases.  [default: AWS's, 300]")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="NAME", help="This variant or inference component, not all of them.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="What scales, and what happened last.")] = False,
    off: Annotated[bool, typer.Option("--off", help="No scaling any more; the count stays as it is.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
    target: Target = None,
    region: Region = None,
    profile: Profile = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Let instances, or copies of inference components, follow the requests in flight.

    --min 0 is for inference components and asynchronous endpoints.
    """
    from bloomery.cli import autoscaling
    from bloomery.cli.account import Account

    wanted = autoscaling.Wanted(
        name, least, most, concurrency, scale_in_cooldown, scale_out_cooldown, only, show, off, dry_run, json
    )
    raise typer.Exit(autoscaling.autoscale(Account(target, region, profile, endpoint_url), wanted))
