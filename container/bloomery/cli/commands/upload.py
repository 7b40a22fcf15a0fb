"""``bloomery upload``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer


def upload(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A directory with a checkpoint, or any files.")],
    uri: Annotated[str, typer.Argument(metavar="URI", help="s3://bucket/prefix/.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    no_resume: Annotated[
        bool, typer.Option("--no-resume", help="Drop the parts of an interrupted upload instead of going on.")
    ] = False,
    connections: Annotated[int, typer.Option(min=1, max=64, help="Parts that are sent at once.")] = 8,
) -> None:
    """Bring a directory to S3 with checksums: what is there and equal is left alone, MANIFEST.json comes last."""
    from bloomery.cli import uploading

    raise typer.Exit(uploading.send(directory, uri, dry_run, not no_resume, connections))
