"""``bloomery package``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from bloomery.cli.arguments import EndpointUrl, Profile, Region, Target


def package(
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="A model directory: model.py, serving.properties, requirements.txt.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The archive.")] = "model.tar.gz",
    top: Annotated[
        str | None, typer.Option(metavar="NAME", help="A directory of the archive that holds everything.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="A name or path that stays out; repeatable.")
    ] = None,
    allow_large: Annotated[bool, typer.Option("--allow-large", help="Weights and files over 50 MB may be in.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors.")] = False,
    upload: Annotated[
        str | None,
        typer.Option(metavar="URI", help="s3://bucket/prefix/: bring it there, under a key made of its content."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look, write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    target: Target = None,
    region: Region = None,
    profile: Profile = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Make a model.tar.gz of a directory, the same bytes every time, after a look at all that may go wrong with it."""
    from bloomery.cli import packaging
    from bloomery.cli.account import Account

    account = Account(target, region, profile, endpoint_url)
    raise typer.Exit(
        packaging.make(directory, output, top, exclude or (), allow_large, strict, upload, dry_run, as_json, account)
    )
