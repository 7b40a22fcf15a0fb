"""A model hub (huggingface.co, or whatever HF_ENDPOINT names): ``org/name`` or ``hf://org/name@revision``.

huggingface_hub gives metadata, tokens and the cache; the bytes come by ranges over connections of ours, at one commit.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bloomery.checkpoints.retry import retry_after
from bloomery.checkpoints.source import Body, Connection, Entry, TransientError, UnreachableError
from bloomery.checkpoints.sources import card
from bloomery.checkpoints.sources.directory import DirectorySource, FileBody
from bloomery.checkpoints.sources.names import check_names
from bloomery.checkpoints.sources.reading import persistently
from bloomery.checkpoints.sources.web import PASSING, Locations, WebConnection, probe, refused
from bloomery.checkpoints.wire.http import Http, HttpConnection
from bloomery.checkpoints.wire.ranges import Empty, asked, range_body, span
from bloomery.checkpoints.wire.transport import Transport
from bloomery.errors import CheckpointError

log = logging.getLogger(__name__)

ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
# The address that a browser shows of a model; that of a file (…/resolve/…) is fetched like any other.
PAGE = re.compile(r"https?://(?:www\.)?huggingface\.co/(?P<id>[\w.-]+/[\w.-]+?)/?(?:tree/[^?]*)?$")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_METADATA_SECONDS = 30.0


def hub_source(
    uri: str, revision: str | None = None, transport: Transport | None = None
) -> HubSource | DirectorySource:
    """The source of ``org/name`` or ``hf://org/name@revision``. With HF_HUB_OFFLINE it is the snapshot in the hub's own
    cache, if that holds weights. Raises CheckpointError for what is no hub's id.
    """
    name, _, named = uri.removeprefix("hf://").strip("/").partition("@")
    if not ID.fullmatch(name):
        raise CheckpointError(
            f"{uri} is no model of a hub: write hf://organisation/name, or hf://organisation/name@tag"
        )
    if named and revision and named != revision:
        raise CheckpointError(f"{uri} names the revision {named!r}, and option.revision {revision!r}: give one of them")
    source = HubSource(uri, name, named or revision, transport)
    if _library().constants.is_offline_mode() and (snapshot := source.snapshot()) is not None:
        log.info("%s: HF_HUB_OFFLINE is set, and the hub's cache has it: %s", uri, snapshot)
        return DirectorySource(snapshot, uri)
    return source


class HubSource:
    """One model at the commit that its revision is when it is listed."""

    def __init__(self, uri: str, name: str, revision: str | None, transport: Transport | None) -> None:
        self.name, self.revision = name, revision
        self._uri, self._transport = uri, transport or Transport.read()
        self._locations = Locations()
        self._commit: str | None = None
        self._licence: str | None = None
        self._local: DirectorySource | None = None  # instead of the hub, when that cannot be reached

    @property
    def uri(self) -> str:
        """What the user wrote."""
        return self._uri

    @property
    def licence(self) -> str | None:
        """Of the model card, as the hub has read it; known once the files are listed."""
        return self._local.licence if self._local is not None else self._licence

    def entries(self) -> Sequence[Entry]:
        """Every file, with the sha256 of large ones. Raises CheckpointError, and UnreachableError when neither the hub
        nor its cache has it.
        """
        try:
            info = persistently(self._info)
        except UnreachableError as error:
            if (snapshot := self.snapshot()) is None:
                raise
            log.warning("%s; the hub's cache has it: %s", error, snapshot)
            self._local = DirectorySource(snapshot, self._uri)
            return self._local.entries()
        self._local, self._commit = None, info.sha
        self._licence = card.from_fields(info.card_data.to_dict()) if info.card_data is not None else None
        files = list(info.siblings or ())
        check_names(self._uri, (file.rfilename for file in files))
        with closing(self.web()) as web:
            return [
                Entry(
                    file.rfilename,
                    self._size(web, file),
                    file.blob_id or f"{info.sha}/{file.rfilename}",
                    sha256=file.lfs.sha256 if file.lfs else None,
                )
                for file in files
            ]

    def checksummed(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """They have their sha256 already, where the hub knows it."""
        return entries

    def connect(self, http: Http = HttpConnection) -> Connection:
        """Opens nothing until it reads."""
        return self._local.connect() if self._local is not None else HubConnection(self, http)

    def web(self, http: Http = HttpConnection) -> WebConnection:
        """A connection with the user's token."""
        given = _library().utils.build_hf_headers()
        token = {"Authorization": given["authorization"]} if "authorization" in given else {}
        return WebConnection(http(self._transport), self._locations, token)

    def url(self, name: str) -> str:
        """Where the file ``name`` is, at the commit that was listed."""
        return str(_library().hf_hub_url(self.name, name, revision=self._commit or self.revision))

    def cached(self, entry: Entry) -> Path | None:
        """The file in the hub's own cache, if it is there whole."""
        found = _library().try_to_load_from_cache(self.name, entry.name, revision=self._commit)
        return Path(found) if isinstance(found, str) and os.path.getsize(found) == entry.size else None

    def snapshot(self) -> Path | None:
        """The directory in the hub's own cache that has this revision with its weights."""
        found = _library().try_to_load_from_cache(self.name, "config.json", revision=self.revision)
        directory = Path(found).parent if isinstance(found, str) else None
        return directory if directory is not None and _has_weights(directory) else None

    def _size(self, web: WebConnection, file: Any) -> int:
        if file.size is not None:
            return int(file.size)
        # Caches between here and the hub leave sizes out.
        what = f"{self._uri}/{file.rfilename}"
        told = persistently(partial(probe, web, self.url(file.rfilename), what))
        if told is None:
            raise CheckpointError(f"{what}: the hub lists it and does not have it")
        return told.size

    def _info(self) -> Any:
        library = _library()
        errors = library.errors
        try:
            return library.HfApi().model_info(
                self.name, revision=self.revision, files_metadata=True, timeout=_METADATA_SECONDS
            )
        except errors.GatedRepoError as error:
            raise _gated(self._uri) from error
        except errors.RepositoryNotFoundError as error:
            raise CheckpointError(
                f"{self._uri} is neither a directory here (looked in {Path.cwd()}) nor a model on the hub: check the "
                "name, and set HF_TOKEN if it is private."
            ) from error
        except errors.RevisionNotFoundError as error:
            raise CheckpointError(f"{self._uri} has no revision {self.revision!r} on the hub.") from error
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status not in PASSING:
                raise CheckpointError(f"{self._uri} could not be fetched from the hub: {error}") from error
            after = retry_after(error.response.headers.get("Retry-After"))
            told = f"{self._uri}: the hub answered {status}"
            raise TransientError(told, slow_down=status == 429, after=after) from error
        except errors.OfflineModeIsEnabled as error:
            raise UnreachableError(
                f"{self._uri} is not a directory here (looked in {Path.cwd()}), and HF_HUB_OFFLINE forbids to ask the "
                "hub, in whose cache it is not whole either: fetch it while there is a network, or set HF_HOME to the "
                "directory that has it."
            ) from error
        except Exception as error:  # which library's errors tell of a network depends on huggingface_hub's version
            raise UnreachableError(
                f"{self._uri} is not a directory here (looked in {Path.cwd()}) and could not be fetched from the hub "
                f"({type(error).__name__}: {error}): check the name and the network, or give a directory."
            ) from error


class HubConnection:
    """Reads ranges of files at the commit that was listed: no other content can be at their addresses."""

    def __init__(self, source: HubSource, http: Http = HttpConnection) -> None:
        self._source, self._web = source, source.web(http)

    @contextmanager
    def read(self, entry: Entry, start: int, length: int) -> Iterator[Body]:
        """As ``source.Connection`` has it."""
        if not length:
            yield Empty()
            return
        what = span(f"{self._source.uri}/{entry.name}", start, length)
        if (path := self._source.cached(entry)) is not None:
            with path.open("rb") as file:
                yield FileBody(file.fileno(), path, start, length)
            return
        with self._web.get(self._source.url(entry.name), asked(start, length), what) as answer:
            if answer.headers.get("x-error-code") == "GatedRepo":  # anybody may list the files of a gated model
                raise _gated(self._source.uri)
            if answer.status not in (200, 206):
                raise refused(answer, what)
            yield range_body(answer, entry, start, length, what)

    def close(self) -> None:
        """As ``source.Connection`` has it."""
        self._web.close()


def _gated(uri: str) -> CheckpointError:
    return CheckpointError(
        f"{uri} is gated: accept its licence on the hub, then set HF_TOKEN to a token of that account."
    )


def _library() -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is imported
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)  # a line for every request
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.errors
    import huggingface_hub.utils

    return huggingface_hub


def _has_weights(directory: Path) -> bool:
    """Whether a snapshot is more than a tokenizer's: every shard that its index names, or one file of weights."""
    for name in _INDEXES:
        try:
            shards = set(json.loads((directory / name).read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError):
            continue
        return all((directory / shard).is_file() for shard in shards)
    return any(directory.glob("*.safetensors")) or any(directory.glob("*.bin"))
