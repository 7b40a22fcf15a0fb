"""``https://host/directory/`` or one file. The server must answer ranges; http:// is for this very machine only.

A web server lists no directories. What is there is told by a MANIFEST.json, else by the index of the weights and by
the names that model directories use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cached_property, partial
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from bloomery.checkpoints.source import Body, ChangedError, Entry
from bloomery.checkpoints.sources import manifest
from bloomery.checkpoints.sources.card import licence_of
from bloomery.checkpoints.sources.names import check_names
from bloomery.checkpoints.sources.reading import persistently, read_bytes
from bloomery.checkpoints.sources.web import (
    ABSENT,
    Locations,
    Probed,
    WebConnection,
    is_safe,
    probe,
    refused,
    without_user,
)
from bloomery.checkpoints.wire.http import Http, HttpConnection
from bloomery.checkpoints.wire.ranges import Empty, asked, range_body, span
from bloomery.checkpoints.wire.transport import Origin, Transport, shown
from bloomery.errors import CheckpointError

_FILES = (
    ".safetensors", ".bin", ".pt", ".pth", ".json", ".txt", ".model", ".md", ".tar.gz", ".tgz", ".tar", ".zip", ".gguf",
)  # fmt: skip
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_USUAL = (
    "README.md", "LICENSE", "LICENSE.txt", "added_tokens.json", "chat_template.jinja", "chat_template.json",
    "config.json", "ds_inference_config.json", "generation_config.json", "merges.txt", "model.safetensors",
    "preprocessor_config.json", "processor_config.json", "pytorch_model.bin", "sentencepiece.bpe.model",
    "special_tokens_map.json", "spiece.model", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "vocab.json", "vocab.txt", *_INDEXES,
)  # fmt: skip
_INDEX_LIMIT = 64 << 20
_PROBES = 8  # at once


class HttpsSource:
    """A directory when the address ends with a slash or without a file's suffix. A query (Azure's SAS, a signature)
    goes with every request and is never shown; user information becomes a header.
    """

    def __init__(self, uri: str, *, transport: Transport | None = None) -> None:
        """Raises CheckpointError for an address that must not be used; asks nobody."""
        Origin.of(uri)
        url, self._private = without_user(uri)
        if not is_safe(url):
            raise CheckpointError(f"{shown(url)} is not encrypted: write https:// (http:// is for this machine only)")
        self._parts = urlsplit(url)
        self._uri, self._transport = shown(url), transport or Transport.read()
        self._locations = Locations()
        self._found: Sequence[Entry] = ()
        self._listed: dict[str, manifest.Listed] = {}

    @property
    def uri(self) -> str:
        """Without query and user."""
        return self._uri

    @cached_property
    def licence(self) -> str | None:
        """Of README.md in the directory."""
        return licence_of(self.connect, lambda: self._found or self.entries())

    @property
    def is_file(self) -> bool:
        """Whether the address names one file."""
        return self._parts.path.lower().endswith(_FILES)

    def entries(self) -> Sequence[Entry]:
        """The files that are known to be there. Raises CheckpointError."""
        if self.is_file:
            found = self._probed([unquote(self._parts.path.rpartition("/")[2])])
            if not found:
                raise CheckpointError(f"{self._uri} cannot be fetched: 404: there is no such file")
        else:
            found = self._directory()
        self._found = found
        return found

    def checksummed(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """With the checksums of MANIFEST.json."""
        return manifest.vouched(entries, self._listed)

    def connect(self, http: Http = HttpConnection) -> HttpsConnection:
        """Opens nothing until it reads."""
        return HttpsConnection(self, self._connection(http))

    def url(self, name: str) -> str:
        """Where the file ``name`` is."""
        folder = self._parts.path.rpartition("/")[0] if self.is_file else self._parts.path.rstrip("/")
        return urlunsplit(self._parts._replace(path=f"{folder}/{quote(name)}", fragment=""))

    def _connection(self, http: Http = HttpConnection) -> WebConnection:
        return WebConnection(http(self._transport), self._locations, self._private)

    def _directory(self) -> list[Entry]:
        listing = self._probed([manifest.NAME], may_be_refused=True)
        if listing:
            self._listed = manifest.read(self._text(listing[0], manifest.LIMIT), self.url_shown(manifest.NAME))
            found = self._probed(self._listed)
            self._compare(found)
            return [*listing, *found]
        found = self._probed(_USUAL, may_be_refused=True)
        names = {entry.name for entry in found}
        shards = {name for entry in found if entry.name in _INDEXES for name in self._shards(entry)}
        check_names(self._uri, shards)
        found += self._probed(sorted(shards - names))
        if lost := shards - {entry.name for entry in found}:
            raise CheckpointError(f"{self._uri} lacks {sorted(lost)[0]!r}, which its index names: upload it")
        if not found:
            self._probed(["config.json"])  # who is refused everything hears that
            raise CheckpointError(
                f"{self._uri} holds none of the files of a model directory: name a directory with config.json, or with "
                f"a {manifest.NAME} (bloomery upload writes one)."
            )
        return found

    def _compare(self, found: Iterable[Entry]) -> None:
        """Whether what is there is what the manifest was written for."""
        sizes = {entry.name: entry.size for entry in found}
        for name, listed in self._listed.items():
            if sizes.get(name) != listed.size:
                there = f"has {sizes[name]} bytes" if name in sizes else "is not there"
                raise CheckpointError(
                    f"{self.url_shown(name)} {there}, and should have {listed.size} by {manifest.NAME}: upload it again"
                )

    def _shards(self, index: Entry) -> set[str]:
        try:
            names = set(json.loads(self._text(index, _INDEX_LIMIT))["weight_map"].values())
            if all(isinstance(name, str) for name in names):
                return names
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise CheckpointError(f"{self.url_shown(index.name)} is no index of weights (it has no weight_map)")

    def _text(self, entry: Entry, limit: int) -> bytes:
        if entry.size > limit:
            raise CheckpointError(f"{self.url_shown(entry.name)} has {entry.size} bytes, which is too much for a list")
        with closing(self.connect()) as connection:
            return read_bytes(connection, entry)

    def _probed(self, names: Iterable[str], *, may_be_refused: bool = False) -> list[Entry]:
        """The entries of those ``names`` that exist, in their order.

        ``may_be_refused``: so are files that are not there, by S3 and by CloudFront, to who may not list them.
        """
        names = list(names)
        shares = [names[at::_PROBES] for at in range(min(_PROBES, len(names)))]
        with ThreadPoolExecutor(_PROBES, "probe") as pool:
            shared = pool.map(lambda share: self._probe_all(share, may_be_refused), shares)
            found = {name: told for share in shared for name, told in share.items()}
        return [Entry(name, told.size, told.validator) for name in names if (told := found[name])]

    def _probe_all(self, names: Sequence[str], may_be_refused: bool) -> dict[str, Probed | None]:
        absent = (*ABSENT, 403) if may_be_refused else ABSENT
        with closing(self._connection()) as connection:
            probes = {name: partial(probe, connection, self.url(name), self.url_shown(name), absent) for name in names}
            return {name: persistently(attempt) for name, attempt in probes.items()}

    def url_shown(self, name: str) -> str:
        """For errors."""
        return shown(self.url(name))


class HttpsConnection:
    """Reads ranges, and compares every answer's validator with the entry's."""

    def __init__(self, source: HttpsSource, web: WebConnection) -> None:
        self._source, self._web = source, web

    @contextmanager
    def read(self, entry: Entry, start: int, length: int) -> Iterator[Body]:
        """As ``source.Connection`` has it."""
        if not length:
            yield Empty()
            return
        url = self._source.url(entry.name)
        what = span(shown(url), start, length)
        strong = entry.identity.startswith('"')  # a weak one may not be compared by If-Match
        headers = asked(start, length) | ({"If-Match": entry.identity} if strong else {})
        with self._web.get(url, headers, what) as answer:
            if answer.status in ABSENT:
                raise ChangedError(f"{what}: the file is gone since it was listed")
            if answer.status not in (200, 206):
                raise refused(answer, what)
            validator = answer.headers.get("etag") or answer.headers.get("last-modified") or ""
            if validator != entry.identity:
                raise ChangedError(f"{what}: the file was replaced while it was fetched")
            yield range_body(answer, entry, start, length, what)

    def close(self) -> None:
        """As ``source.Connection`` has it."""
        self._web.close()
