"""``bloomery check``: what it takes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def check(
    directory: Annotated[str | None, typer.Argument(metavar="[DIR]", help="A model directory.")] = None,
    env: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Variables: an env file, docker run -e lines, or JSON; - for standard input."
        ),
    ] = None,
    env_now: Annotated[bool, typer.Option("--env-now", help="The variables of the present environment.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    table: Annotated[
        bool, typer.Option("--table", help="Print the whole table as Markdown (docs/from-lmi.md).")
    ] = False,
) -> None:
    """Tell of each setting for LMI, DJLServing or TGI: same here, different, or refused; exit code 1 if any is."""
    if table:
        from bloomery.settings import migration

        sys.stdout.write(migration.page())
        raise typer.Exit
    from bloomery.cli import checking

    raise typer.Exit(checking.check(directory, env, env_now, as_json))
