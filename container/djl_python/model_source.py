"""The checkpoint that ``option.model_id`` names in S3, as a directory: DJLServing's handlers find it so since 0.22."""

from __future__ import annotations

from typing import Any

from bloomery.settings.table import STREAMED


def localise(properties: dict[str, Any]) -> None:
    """Fetch an ``s3://`` model_id (or s3url, its older name) and put the directory in its place, before the handler is
    called. Hub ids and directories stay as they are, and so does what option.load_format wants streamed past the disk.
    Raises CheckpointError."""
    if properties.get("load_format") in STREAMED:
        return
    for name in ("model_id", "s3url"):
        uri = properties.get(name)
        if isinstance(uri, str) and uri.startswith("s3://"):
            from bloomery import checkpoints  # loads boto3

            properties["model_id"] = str(checkpoints.fetch(uri, any_layout=True))
