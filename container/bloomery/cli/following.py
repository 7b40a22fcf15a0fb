"""``bloomery logs``: the containers' lines."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from bloomery import cli
from bloomery.cli.account import Account
from bloomery.cli.interruption import terminable
from bloomery.cli.times import moment
from bloomery.errors import ConfigurationError
from bloomery.sagemaker.operating.description import components, describe
from bloomery.sagemaker.operating.logs import LogLine, Logs, start_of_tail
from bloomery.sagemaker.operating.status import log_groups
from bloomery.sagemaker.session import Session

_TAIL = 100
_BEGINNING = datetime.fromtimestamp(0, UTC)
_PERIOD, _PERIOD_HERE = 3.0, 0.3  # seconds between two looks, at AWS and at an emulator


@dataclass(frozen=True)
class Wanted:
    """As the command line has it."""

    name: str
    follow: bool
    since: str | None
    tail: int | None
    grep: str | None


def logs(account: Account, wanted: Wanted) -> int:
    """Print lines, with ``follow`` until Ctrl-C; the exit code."""
    pattern = _pattern(wanted.grep)
    since = None if wanted.since is None else max(moment(wanted.since, "--since", datetime.now(UTC)), _BEGINNING)
    # All lines since a moment, unless a number is given; of those in which something is found, too.
    tail = wanted.tail if wanted.tail is not None or since is not None or pattern is not None else _TAIL
    with terminable(), account.open() as session:
        groups = log_groups(wanted.name, tuple(components(session, wanted.name)))
        if since is None and tail is not None and pattern is None:
            since = start_of_tail(session, [group for _, group in groups], tail)
        reader = Logs(session, groups, since or _BEGINNING)
        first = deque((line for line in reader.new() if pattern is None or pattern.search(line.text)), maxlen=tail)
        if not first and not wanted.follow:
            _say_why(session, wanted)
        streams = {line.stream for line in first}
        _write(first, streams)
        was_there = wanted.follow and describe(session, wanted.name) is not None
        while wanted.follow:
            time.sleep(_PERIOD_HERE if session.is_emulator else _PERIOD)
            # Before the last lines are read, so that none is missed.
            gone = was_there and describe(session, wanted.name) is None
            lines = [line for line in reader.new() if pattern is None or pattern.search(line.text)]
            streams |= {line.stream for line in lines}
            _write(lines, streams)
            if gone:
                print(f"endpoint {wanted.name} is gone", file=sys.stderr)
                break
    return cli.OK


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise ConfigurationError(f"--grep {text!r} is no regular expression: {error}") from error


def _write(lines: Iterable[LogLine], streams: set[str]) -> None:
    """At one go each; with the stream where there is more than one."""
    for line in lines:
        stream = f"{line.stream}  " if len(streams) > 1 else ""
        sys.stdout.write(f"{line.at.astimezone():%H:%M:%S.%f}"[:-3] + f"  {stream}{line.text}\n")
    sys.stdout.flush()


def _say_why(session: Session, wanted: Wanted) -> None:
    if wanted.since is not None or wanted.grep is not None:
        print("no such lines", file=sys.stderr)
    elif describe(session, wanted.name) is None:
        print(f"there is no endpoint {wanted.name} in {session.region}, and no log of one", file=sys.stderr)
    else:
        print(f"the containers of {wanted.name} have printed nothing yet", file=sys.stderr)
