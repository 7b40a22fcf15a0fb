"""``bloomery verify``: what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bloomery.cli.arguments import EndpointUrl, Profile, Region, Target


def verify(
    endpoint: Annotated[
        str, typer.Argument(metavar="URL|NAME", help="http://host:port, or the name of a SageMaker endpoint.")
    ],
    reference: Annotated[
        str, typer.Option(metavar="CHECKPOINT", help="The unsharded model: a directory, s3://…, or a hub id.")
    ],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub's model.")] = None,
    prompts: Annotated[
        str | None, typer.Option(metavar="FILE", help="One per line, or JSON lines.  [default: 8 of random words]")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="New tokens per prompt.")] = 32,
    dtype: Annotated[
        str | None,
        typer.Option(help="What the endpoint serves in: fp16, bf16, fp32, int8.  [default: as the checkpoint is]"),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", "-p", metavar="NAME=VALUE", help="Send it with each request; null: not; repeatable."
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Per request, of a URL.")] = 600.0,
    output: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report there, too.")] = None,
    target: Target = None,
    region: Region = None,
    profile: Profile = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Compare an endpoint's greedy answers with the unsharded fp32 model; fails on more than its format explains."""
    from bloomery.cli import verifying

    place = verifying.Place(target, region, profile, endpoint_url)
    raise typer.Exit(
        verifying.verify(
            endpoint,
            place,
            reference=reference,
            revision=revision,
            prompts=prompts,
            new_tokens=max_new_tokens,
            dtype=dtype,
            parameters=parameter or [],
            timeout=timeout,
            output=output,
        )
    )
