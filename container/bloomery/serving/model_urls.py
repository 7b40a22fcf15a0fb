"""Models from beyond this machine, fetched by a process of its own: no client of a cloud in the serving process."""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path

import bloomery
from bloomery.errors import BadRequestError
from bloomery.processes.child import Child

logger = logging.getLogger("bloomery.serving")
_REMOTE = re.compile(r"(s3|https|hf)://\S+")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_URL, _RESULT = "BLOOMERY_MODEL_URL", "fetched: "  # as bloomery.checkpoints.download has them
_GRACE = 2.0  # seconds a fetch that nobody wants any more gets to clean up


def is_remote(url: str) -> bool:
    """Whether ``url`` is of a kind that can be fetched; a hub's model is also named by its bare id."""
    return bool(_REMOTE.fullmatch(url) or _HUB_ID.fullmatch(url))


async def fetch(url: str) -> str:
    """The directory or archive on this machine that holds what ``url`` names now; BadRequestError if there is none."""
    command = [sys.executable, "-m", "bloomery.checkpoints.download"]
    # Not as an argument: everybody on the machine sees those, and a query may hold a signature.
    env = {**os.environ, "PYTHONPATH": _python_path(), _URL: url}
    child = Child.start(command, env, None, lambda line: logger.info("fetching a model: %s", line))
    try:
        code = await child.exited
    finally:
        await child.end(_GRACE)
    last = child.last_lines(1)
    if code == 0 and last and last[0].startswith(_RESULT):
        return last[0].removeprefix(_RESULT)
    raise BadRequestError(f"Invalid model url: {last[0] if last else f'the fetch ended with exit code {code}'}")


def _python_path() -> str:
    root = str(Path(bloomery.__file__).resolve().parent.parent)
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
