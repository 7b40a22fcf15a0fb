"""The checkpoint that ``option.model_id`` names elsewhere, as a directory: so DJLServing's handlers find what lies in
S3 since 0.22."""

from __future__ import annotations

from typing import Any

from bloomery.settings.table import STREAMED

_ADDRESSES = ("s3://", "https://", "hf://")


def localise(properties: dict[str, Any]) -> None:
    """Fetch a model_id (or s3url, its older name) that is an address, and put the directory in its place, before the
    handler is called. Hub ids and directories stay as they are, and so does what option.load_format wants streamed past
    the disk. Raises CheckpointError."""
    if properties.get("load_format") in STREAMED:
        return
    for name in ("model_id", "s3url"):
        uri = properties.get(name)
        if isinstance(uri, str) and uri.startswith(_ADDRESSES):
            from bloomery import checkpoints

            path = checkpoints.fetch(uri, revision=properties.get("revision"), any_layout=True)
            properties["model_id"] = str(path)
