"""``bloomery plan``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from bloomery.cli import arguments


def plan(
    checkpoint: Annotated[str, typer.Option(metavar="URI", help="A directory, s3://…, https://… or a hub's id.")],
    instance_type: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="To look at; repeatable.  [default: all with GPUs]")
    ] = None,
    tensor_parallel: Annotated[
        int | None,
        typer.Option("--tensor-parallel", "-t", metavar="N", help="Ranks.  [default: all possible]"),
    ] = None,
    dtype: Annotated[str, typer.Option(help="fp16, bf16, int8, fp32, or auto: as the checkpoint says.")] = "auto",
    batch: Annotated[int, typer.Option(metavar="N", help="Sequences at once.")] = 1,
    length: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens of each, prompt and answer together.  [default: 1024]")
    ] = None,
    kernel_inject: Annotated[
        bool | None,
        typer.Option(
            "--kernel-inject/--no-kernel-inject", help="As option.kernel_inject.  [default: where it is right]"
        ),
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="[TYPE=]USD", help="Of an hour; repeatable, without TYPE for a single --instance-type."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub's model.")] = None,
    check_quota: Annotated[bool, typer.Option("--check-quota", help="Ask Service Quotas for the account's.")] = False,
    check_price: Annotated[bool, typer.Option("--check-price", help="Ask AWS's price list for what fits.")] = False,
    target: arguments.Target = None,
    region: arguments.Region = None,
    profile: arguments.Profile = None,
    endpoint_url: arguments.EndpointUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what a checkpoint needs and which instance types it fits on, without fetching it; exit code 1: on none."""
    from bloomery.cli import planning
    from bloomery.cli.account import Account

    code = planning.show(
        checkpoint,
        price or [],
        Account(target, region, profile, endpoint_url),
        as_json,
        check_quota=check_quota,
        check_price=check_price,
        instance_types=instance_type or (),
        tensor_parallel=tensor_parallel,
        dtype=dtype,
        batch=batch,
        length=length,
        kernel_inject=kernel_inject,
        revision=revision,
    )
    raise typer.Exit(code)
