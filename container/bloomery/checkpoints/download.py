"""``python -m bloomery.checkpoints.download``: fetch what BLOOMERY_MODEL_URL names, and print where it is.

The serving process runs this as a child for models that are added from a URL. An archive goes into the directory
BLOOMERY_MODEL_DIRECTORY; checkpoints and model directories go where ``fetch`` keeps them. The last line of the output
is the result or the reason; a query, which may hold a signature, is never printed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bloomery.checkpoints.fetch import fetch, fetch_into
from bloomery.checkpoints.sources import open_source
from bloomery.checkpoints.wire.transport import shown
from bloomery.errors import BloomeryError, CheckpointError

_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")


def download(url: str, directory: Path) -> Path:
    """The path of what ``url`` names: an archive at https:// or s3://, s3://bucket/prefix, hf://organisation/name, or
    a hub id. Raises CheckpointError.
    """
    is_web = url.startswith("https://")
    path = urlsplit(url).path if is_web else url
    if path.endswith(_ARCHIVES):
        fetch_into(open_source(url), directory)
        return directory / (unquote(path) if is_web else path).rpartition("/")[2]
    if is_web:
        raise CheckpointError(f"{shown(url)} is no archive: over https a model is one of {', '.join(_ARCHIVES)}")
    return fetch(url, allow_patterns=["*"] if url.startswith("s3://") else None)


def main() -> int:
    """The exit code: 0 with the path, 1 with the reason."""
    try:
        where = download(os.environ["BLOOMERY_MODEL_URL"], Path(os.environ["BLOOMERY_MODEL_DIRECTORY"]))
        print(f"fetched: {where}", flush=True)
    except BloomeryError as error:
        print(" ".join(str(error).split()), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
