"""Models from beyond this machine, fetched by a process of its own: no client of a cloud in the serving process."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import bloomery
from bloomery.errors import BadRequestError
from bloomery.processes.child import Child

logger = logging.getLogger("bloomery.serving")
_REMOTE = re.compile(r"(s3|https|hf)://\S+")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# As bloomery.checkpoints.download has them.
_URL, _DIRECTORY, _RESULT = "BLOOMERY_MODEL_URL", "BLOOMERY_MODEL_DIRECTORY", "fetched: "
_GRACE = 2.0  # seconds a fetch that nobody wants any more gets to clean up


def is_remote(url: str) -> bool:
    """Whether ``url`` is of a kind that can be fetched; a hub's model is also named by its bare id."""
    return bool(_REMOTE.fullmatch(url) or _HUB_ID.fullmatch(url))


@asynccontextmanager
async def fetched(url: str) -> AsyncIterator[Path]:
    """What ``url`` names now, on this machine: a directory, or an archive that is there as long as the context is.

    BadRequestError says why there is none.
    """
    with tempfile.TemporaryDirectory(prefix="bloomery-model-", ignore_cleanup_errors=True) as directory:
        yield await _fetch(url, directory)


async def _fetch(url: str, directory: str) -> Path:
    command = [sys.executable, "-m", "bloomery.checkpoints.download"]
    # Not as an argument: everybody on the machine sees those, and a query may hold a signature.
    env = {**os.environ, "PYTHONPATH": _python_path(), _URL: url, _DIRECTORY: directory}
    child = Child.start(command, env, None, lambda line: logger.info("fetching a model: %s", line))
    try:
        code = await child.exited
    finally:
        await child.end(_GRACE)
    last = child.last_lines(1)
    if code == 0 and last and last[0].startswith(_RESULT):
        return Path(last[0].removeprefix(_RESULT))
    raise BadRequestError(f"Invalid model url: {last[0] if last else f'the fetch ended with exit code {code}'}")


def _python_path() -> str:
    root = str(Path(bloomery.__file__).resolve().parent.parent)
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
