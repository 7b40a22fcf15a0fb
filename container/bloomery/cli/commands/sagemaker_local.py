"""``bloomery sagemaker-local``: what it takes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bloomery.cli.arguments import Host

sagemaker_local = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="SageMaker on this machine: its API, and endpoints that really serve.",
)


@sagemaker_local.callback(invoke_without_command=True)
def emulate(
    context: typer.Context,
    host: Host = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for any free one.  [default: 8099]")] = None,
    state: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="What survives a restart.  [default: below ~/.local/state]"),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX=COMMAND", help="What runs for images that match; repeatable."),
    ] = None,
    log_bodies: Annotated[
        str | None, typer.Option(metavar="FILE", help="Keep requests and answers there, as JSON lines.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="Another limit than SageMaker's: payload (bytes), invocation, stream, asynchronous (seconds), …",
        ),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND[,NAME=VALUE…]",
            help="What is to go wrong, repeatable. InsufficientInstanceCapacity (instance_type, endpoint), "
            "ResourceLimitExceeded (operation, instance_type), ThrottlingException (operation), SlowStart (seconds, "
            "instance_type, endpoint), ContainerDies (seconds or invocations, instance_type, endpoint), ModelError "
            "(status, endpoint); each with times=N (default: always) and fraction=0…1. instance_type, endpoint and "
            "operation are regular expressions. Also at run time: POST /_bloomery/faults.",
        ),
    ] = None,
    scaler_period: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=3600, metavar="SECONDS", help="How often scaling policies are looked at.  [default: 10 or 60]"
        ),
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option(metavar="FILE.json", help="Other quotas and prices, by instance type, than the emulator's own."),
    ] = None,
) -> None:
    """SageMaker on this machine, until SIGTERM or Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    from bloomery.cli import emulating

    wanted = emulating.Wanted(
        host, port, state, image or [], log_bodies, limit or [], fault or [], scaler_period, tables
    )
    raise typer.Exit(emulating.emulate(wanted))


@sagemaker_local.command("env")
def exports(
    context: typer.Context,
    host: Host = None,
    port: Annotated[int | None, typer.Option(help="Port of the emulator.  [default: 8099]")] = None,
    sdk: Annotated[bool, typer.Option("--sdk", help="Make the SageMaker Python SDK (v2, v3) find STS there.")] = False,
) -> None:
    """Print shell lines that point AWS clients at the emulator: eval "$(bloomery sagemaker-local env)"."""
    import os

    from bloomery.cli import emulating

    above = context.parent.params if context.parent else {}
    host, port = host or above.get("host"), port or above.get("port")
    sys.stdout.write(emulating.exports(host, port, os.environ, sdk=sdk))
