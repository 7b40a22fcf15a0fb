"""``open_source``: the source of whatever a user may name as a checkpoint."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from bloomery.checkpoints.source import Source
from bloomery.checkpoints.sources import hub
from bloomery.checkpoints.sources.directory import DirectorySource
from bloomery.checkpoints.sources.https import HttpsSource
from bloomery.checkpoints.sources.hub import hub_source
from bloomery.checkpoints.sources.s3 import S3Source
from bloomery.checkpoints.wire.transport import Transport
from bloomery.errors import CheckpointError


def open_source(uri: str | Path, *, revision: str | None = None, transport: Transport | None = None) -> Source:
    """The source that ``uri`` names: ``s3://bucket/prefix`` (or one object), ``https://host/directory/`` (or one file),
    a hub's model (``org/name``, ``hf://org/name@revision``), a directory or file of this machine (``file://`` too).

    ``revision``: of a hub's model. ``transport``: timeouts and the like, from the environment by default. Asks nobody
    yet. Raises CheckpointError for what cannot be a checkpoint, and ConfigurationError for a setting that is wrong.
    """
    text = str(uri)
    path = local_path(text)
    if path is not None:
        return DirectorySource(path, text)
    scheme, separator, _ = text.partition("://")
    if scheme == "s3" and separator:
        return S3Source(text, transport=transport)
    if page := hub.PAGE.match(text):
        raise CheckpointError(f"{text} is a page of the hub: name the model by its id, {page['id']}.")
    if scheme in ("https", "http") and separator:
        return HttpsSource(text, transport=transport)
    if scheme == "hf" or not separator:
        return hub_source(text, revision, transport)
    raise CheckpointError(
        f"{text} cannot be fetched: give s3://bucket/prefix, a model hub's id such as bigscience/bloom-560m, "
        "https://host/directory/, a directory, or file:///directory."
    )


def local_path(uri: str) -> Path | None:
    """The path that ``uri`` names, None when it is a URL or a hub's id. Raises CheckpointError for what names none."""
    if not uri.strip():
        raise CheckpointError("no checkpoint is named: give s3://bucket/prefix, a model hub's id, or a directory")
    scheme, separator, rest = uri.partition("://")
    if separator and scheme != "file":
        return None
    if separator and not rest.startswith(("/", "localhost/")):
        raise CheckpointError(f"{uri} names a machine, {rest.partition('/')[0]!r}: write file:///directory, or a path")
    try:
        path = Path(unquote(urlsplit(uri).path)) if separator else Path(uri).expanduser()
        return path if separator or path.exists() or not hub.ID.fullmatch(uri) else None
    except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, a user who does not exist
        raise CheckpointError(f"{uri[:200]} cannot be looked for: {error}") from error
