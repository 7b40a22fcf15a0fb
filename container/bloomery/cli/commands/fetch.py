"""``bloomery fetch``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer


def fetch(
    uri: Annotated[
        str,
        typer.Argument(metavar="URI", help="s3://bucket/prefix, a hub's id, https://… or a directory; or one file."),
    ],
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Where its files shall be.")],
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Fetch what matches, such as '*.json'; repeatable.  [default: all but weights that are there twice]",
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub's model.")] = None,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Compare no checksums.")] = False,
    no_resume: Annotated[
        bool, typer.Option("--no-resume", help="Drop what an interrupted fetch has left, and leave nothing behind.")
    ] = False,
    connections: Annotated[
        int | None, typer.Option(min=1, max=256, help="Ranges that are read at once.  [default: 16 to 64, by cores]")
    ] = None,
) -> None:
    """Bring a checkpoint to a directory: whole and verified, or not at all; an interrupted fetch is gone on with."""
    from bloomery.cli import fetching

    raise typer.Exit(
        fetching.fetch(
            uri,
            directory,
            include or [],
            revision,
            verify=not no_verify,
            resume=not no_resume,
            connections=connections,
        )
    )
