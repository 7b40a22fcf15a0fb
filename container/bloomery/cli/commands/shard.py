"""``bloomery shard``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer


def shard(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint: a directory, s3://…, or a hub id.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="A new directory, or s3://bucket/prefix.")],
    tensor_parallel: Annotated[
        int, typer.Option("--tensor-parallel", "-t", metavar="N", help="Ranks; 1 gives an ordinary checkpoint.")
    ],
    dtype: Annotated[
        str | None, typer.Option(help="fp32, fp16, bf16, or int8 (linear layers only).  [default: as stored]")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub's model.")] = None,
) -> None:
    """Split a checkpoint over ranks ahead of time, convert it to safetensors, or write it in another precision."""
    from bloomery.cli import sharding

    raise typer.Exit(sharding.write(source, target, tensor_parallel, dtype, revision))
