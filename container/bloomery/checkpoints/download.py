"""``python -m bloomery.checkpoints.download``: fetch what BLOOMERY_MODEL_URL names, and print where it is.

The serving process runs this as a child for models that are added from a URL. An archive goes into the directory
BLOOMERY_MODEL_DIRECTORY; checkpoints and model directories go where ``fetch`` keeps them. The last line of the output
is the result or the reason; a query, which may hold a signature, is never printed.
"""

from __future__ import annotations

import os
import shutil
import sys
import urllib.request
from http.client import HTTPMessage
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request

from bloomery.checkpoints.fetch import fetch, fetch_into
from bloomery.checkpoints.sources import open_source
from bloomery.errors import BloomeryError, CheckpointError

_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
_TIMEOUT = 60.0  # seconds without a byte


def download(url: str, directory: Path) -> Path:
    """The path of what ``url`` names: an archive at https:// or s3://, s3://bucket/prefix, hf://organisation/name, or
    a hub id. Raises CheckpointError.
    """
    if url.startswith("https://"):
        return _archive(url, directory)
    if url.startswith("s3://") and url.endswith(_ARCHIVES):
        fetch_into(open_source(url), directory)
        return directory / url.rpartition("/")[2]
    if url.startswith("s3://"):
        return fetch(url, allow_patterns=["*"])
    return fetch(url.removeprefix("hf://"))


def _archive(url: str, directory: Path) -> Path:
    shown, name = url.partition("?")[0], Path(urlsplit(url).path).name
    if not name.endswith(_ARCHIVES):
        raise CheckpointError(f"{shown} is no archive: over https a model is one of {', '.join(_ARCHIVES)}")
    try:
        opener = urllib.request.build_opener(_NoDowngrade)
        with opener.open(url, timeout=_TIMEOUT) as answer, (directory / name).open("wb") as file:
            shutil.copyfileobj(answer, file)
    except OSError as error:  # urllib's errors are OSErrors
        reason = f"{error.code} {error.reason}" if isinstance(error, HTTPError) else getattr(error, "reason", error)
        raise CheckpointError(f"{shown} cannot be fetched: {reason}") from error
    return directory / name


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """A redirection may lead elsewhere, but not to plain text: the archive holds code."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not newurl.startswith("https://"):
            raise CheckpointError(f"{req.full_url.partition('?')[0]} leads to {urlsplit(newurl).scheme}, not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


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
