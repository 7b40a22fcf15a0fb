"""``bloomery delete``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from bloomery.cli.arguments import DryRun, EndpointUrl, Profile, Region, Target, Yes


def delete(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Endpoints.")] = None,
    expired: Annotated[
        bool, typer.Option("--expired", help="Also every endpoint whose --ttl has passed (tag bloomery:expires).")
    ] = False,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="s3://BUCKET/PREFIX/", help="Delete all objects below it, too; asks first."),
    ] = None,
    artefacts: Annotated[
        bool, typer.Option("--artefacts", help="Delete the model archives that bloomery uploaded, too; asks first.")
    ] = False,
    keep_model: Annotated[bool, typer.Option("--keep-model", help="Leave the models for another endpoint.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is gone, or when it is going.")] = True,
    dry_run: DryRun = False,
    yes: Yes = False,
    target: Target = None,
    region: Region = None,
    profile: Profile = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Delete endpoints with their configurations, models, components, scaling policies and alarms.

    What another endpoint uses is kept.
    """
    from bloomery.cli import removing
    from bloomery.cli.account import Account

    wanted = removing.Wanted(tuple(names or ()), expired, checkpoint, artefacts, keep_model, wait, dry_run, yes)
    raise typer.Exit(removing.delete(Account(target, region, profile, endpoint_url), wanted))
