"""What to do about a reason for which SageMaker gives up on an endpoint."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

CAPACITY = re.compile(r"InsufficientInstanceCapacity|insufficient capacity", re.IGNORECASE)

# The first row that fits the end of the log, else what our own server's report says there, else the first that fits the
# reason: a log knows the cause.
_LOG = (
    (
        re.compile(r"out of memory|OutOfMemory|CUDA_ERROR_OUT_OF_MEMORY|MemoryError|Cannot allocate memory|oom-kill"),
        (
            "the model does not fit: a larger instance type, a higher --tensor-parallel, or OPTION_DTYPE=int8 "
            "(`bloomery plan` tells what fits where)"
        ),
    ),
    (
        re.compile(r"No space left on device"),
        "the disk is full: a larger --volume, or an instance type with NVMe of its own",
    ),
    (
        re.compile(r"AccessDenied|not authorized to perform|403 Forbidden"),
        "the execution role may not read what the container asks for: `bloomery policies role` prints a policy",
    ),
    (
        re.compile(r"ModuleNotFoundError|ImportError"),
        "the handler imports what the image does not have: add it to requirements.txt in the archive",
    ),
)
_REASON = (
    (
        CAPACITY,
        (
            "AWS has no such machine free now: try again later (--capacity-retries), in another region, or give "
            "--instance-type several times"
        ),
    ),
    (
        re.compile(r"ping health check"),
        (
            "the container ended, or was not ready in time: the log says why; if it was still loading, give a longer "
            "--startup-timeout (3600 s at most)"
        ),
    ),
    (
        re.compile(r"CannotStartContainer"),
        (
            "the image has no program that starts with `serve`, or is for another processor: `docker run IMAGE serve` "
            "shows it"
        ),
    ),
    (
        re.compile(r"Failed to extract model data"),
        "the archive is no gzip of a tar, or has links in it: make it with `bloomery package`",
    ),
    (
        re.compile(r"was not downloaded and extracted within"),
        "give a longer --download-timeout (3600 s at most), or leave the weights out of the archive",
    ),
    (
        re.compile(r"Failed to download model data"),
        "look whether the object is there, in the endpoint's region, and whether the execution role may read it",
    ),
    (
        re.compile(r"cannot be run here"),
        "start the emulator with --image 'REGEX=COMMAND', or leave --image out for this project's own server",
    ),
    (
        re.compile(r"image.*(not found|does not exist|pull)|repository|ECR|CannotPullContainer", re.IGNORECASE),
        "look at --image: the repository and tag, the region, and whether the execution role may pull from it",
    ),
    (
        re.compile(r"role|AssumeRole|not authorized", re.IGNORECASE),
        "look at --role: it must exist, trust sagemaker.amazonaws.com, and may read the archive and the image",
    ),
    (
        re.compile(r"ResourceLimitExceeded|service limit|quota", re.IGNORECASE),
        "ask for a higher quota in the console under Service Quotas, Amazon SageMaker, '<type> for endpoint usage'",
    ),
)


def reported(log: Sequence[str], name: str) -> str | None:
    """What our own server's report of a failed load says under ``name`` ("what", "to do"), in one line."""
    start = f"{name:>8}: "
    at = next((index for index, line in enumerate(log) if line.startswith(start)), None)
    if at is None:
        return None
    more = itertools.takewhile(lambda line: line.startswith(" " * len(start)), log[at + 1 :])
    return " ".join([log[at].removeprefix(start).strip(), *(line.strip() for line in more)])


def advice(reason: str, log: Sequence[str] = ()) -> str | None:
    """For a FailureReason and the last lines of the log; None when we know none."""
    return _first(_LOG, "\n".join(log)) or reported(log, "to do") or _first(_REASON, reason)


def _first(rows: Sequence[tuple[re.Pattern[str], str]], text: str) -> str | None:
    return next((what for pattern, what in rows if pattern.search(text)), None)
