"""Files at https:// addresses: redirects that may be followed, refusals in words, and what a file is.

Used by ``https`` and by ``hub``, whose large files lie behind redirects to signed addresses.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from bloomery.checkpoints.retry import retry_after
from bloomery.checkpoints.source import ChangedError, TransientError
from bloomery.checkpoints.wire.answer import Answered
from bloomery.checkpoints.wire.http import HttpClient
from bloomery.checkpoints.wire.ranges import asked
from bloomery.checkpoints.wire.transport import Origin, shown
from bloomery.errors import CheckpointError

_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
ABSENT = (404, 410)
PASSING = (408, 425, 429, 500, 502, 503, 504)
_TOTAL = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")


class Locations:
    """Where addresses have led, so that not every range asks for the way again. Shared by a source's connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}

    def of(self, url: str) -> str:
        """Where ``url`` led last, ``url`` itself when that is not known."""
        with self._lock:
            return self._known.get(url, url)

    def note(self, url: str, location: str) -> None:
        """``url`` has led to ``location``."""
        with self._lock:
            self._known[url] = location

    def forget(self, url: str, location: str) -> bool:
        """``location`` no longer answers; whether there is a way to be asked for again."""
        with self._lock:
            if self._known.get(url) == location:
                del self._known[url]
            return location != url


class WebConnection:
    """One kept-alive connection that follows redirects. As ``HttpConnection`` with threads and ``close``.

    ``private``: headers (a token) that go to the origin of the address asked for, and never elsewhere.
    """

    def __init__(self, http: HttpClient, locations: Locations, private: Mapping[str, str] | None = None) -> None:
        self._http, self._locations, self._private = http, locations, dict(private or {})

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str], what: str) -> Iterator[Answered]:
        """The answer that is no redirect. Raises as ``HttpConnection.get``, and CheckpointError for a redirect that
        must not be followed.
        """
        while True:
            location = self._locations.of(url)
            with self._followed(url, location, headers, what) as answer:
                # What was signed for a while has expired: ask for the way again.
                if answer.status not in (401, 403, *ABSENT) or not self._locations.forget(url, location):
                    yield answer
                    return

    def close(self) -> None:
        """From any thread."""
        self._http.close()

    @contextmanager
    def _followed(self, url: str, location: str, headers: Mapping[str, str], what: str) -> Iterator[Answered]:
        for _ in range(_MOST_REDIRECTS):
            private = self._private if Origin.of(location) == Origin.of(url) else {}
            with self._http.get(location, {**headers, **private}, what) as answer:
                if answer.status not in _REDIRECTS:
                    yield answer
                    return
                target = urljoin(location, answer.headers.get("location", ""))
            if urlsplit(location).scheme == "https" and urlsplit(target).scheme != "https":
                raise CheckpointError(f"{what}: {shown(location)} leads to {urlsplit(target).scheme}, not https")
            if not is_safe(target):
                raise CheckpointError(f"{what}: {shown(location)} leads to {shown(target)}, which is not encrypted")
            location = target
            self._locations.note(url, location)
        raise CheckpointError(f"{what}: {shown(url)} leads on more than {_MOST_REDIRECTS} times")


@dataclass(frozen=True)
class Probed:
    """What a server says of a file. ``validator``: an ETag, else a date, else ""."""

    size: int
    validator: str


def probe(connection: WebConnection, url: str, what: str, absent: Collection[int] = ABSENT) -> Probed | None:
    """Size and validator of the file at ``url``, None when there is none, as the statuses ``absent`` say. One attempt.
    Raises CheckpointError.
    """
    with connection.get(url, asked(0, 1), what) as answer:
        if answer.status in absent:
            return None
        validator = answer.headers.get("etag") or answer.headers.get("last-modified") or ""
        total = _TOTAL.fullmatch(answer.headers.get("content-range", ""))
        if answer.status in (206, 416) and total:
            return Probed(int(total[1]), validator)
        if answer.status == 200 and answer.length is not None:
            return Probed(answer.length, validator)
        if answer.status in (200, 206):
            raise CheckpointError(f"{what}: the server does not say how long the file is")
        raise refused(answer, what)


def refused(answer: Answered, what: str) -> CheckpointError:
    """The error for an answer that is neither 200 nor 206."""
    told = f"{answer.status} {answer.reason}".strip()
    if answer.status in (412, 416):
        return ChangedError(f"{what}: the file was replaced while it was fetched")
    if answer.status in PASSING:
        after = retry_after(answer.headers.get("retry-after"))
        return TransientError(f"{what}: the server answered {told}", slow_down=answer.status in (429, 503), after=after)
    if answer.status in (401, 403):
        return CheckpointError(f"{what} cannot be fetched: {told}: the server wants other credentials, or none will do")
    if answer.status in ABSENT:
        return CheckpointError(f"{what} cannot be fetched: {told}: there is no such file")
    return CheckpointError(f"{what} cannot be fetched: the server answered {told}")


def is_safe(url: str) -> bool:
    """Whether ``url`` is https, or leads to this very machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))


def without_user(url: str) -> tuple[str, dict[str, str]]:
    """``url`` without its user information, and the header that says the same."""
    parts = urlsplit(url)
    user, separator, host = parts.netloc.rpartition("@")
    if not separator:
        return url, {}
    encoded = base64.b64encode(unquote(user).encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {encoded}"}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
