"""Where a model's files are when it is loaded: all of them in a directory, or the weights still at their source."""

from __future__ import annotations

import contextlib
import glob
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bloomery.checkpoints.choice import wanted_files, weight_files
from bloomery.checkpoints.disk.options import FetchOptions
from bloomery.checkpoints.fetch import fetch
from bloomery.checkpoints.source import Entry, Source
from bloomery.checkpoints.sources import local_path, open_source
from bloomery.checkpoints.sources.directory import DirectorySource
from bloomery.checkpoints.sources.reading import read_bytes
from bloomery.checkpoints.splitting import presharded
from bloomery.errors import CheckpointError, ConfigurationError
from bloomery.settings.table import STREAMED

log = logging.getLogger(__name__)

# What other systems' option.load_format may be: formats of files, which are recognised by themselves here.
_NAMED_ELSEWHERE = ("safetensors", "pt", "npcache", "mistral", "bitsandbytes", "fastsafetensors")
_PICKLE = re.compile(r".*\.(bin|pt|pth|ckpt)")


@dataclass(frozen=True)
class Checkpoint:
    """``path``: the directory with config.json and the tokenizer, and with the weights when ``source`` is None; else
    these are the safetensors ``files`` of ``source`` at ``revision``. ``allow_pickle``: whether torch's own files may
    be loaded."""

    path: Path
    source: Source | None = None
    files: tuple[Entry, ...] = ()
    revision: str | None = None
    allow_pickle: bool = True

    @classmethod
    def of(cls, place: Checkpoint | str | Path) -> Checkpoint:
        """What a handler gives: a checkpoint that was located, or the directory of one."""
        return place if isinstance(place, Checkpoint) else cls(Path(place))

    def on_disk(self) -> Path:
        """The directory with everything, fetched now where it is not there yet. Raises CheckpointError."""
        return self.path if self.source is None else fetch(self.source.uri, revision=self.revision, source=self.source)


def locate(
    uri: str | Path, *, revision: str | None = None, load_format: str = "auto", allow_pickle: bool = True
) -> Checkpoint:
    """The checkpoint of ``uri``, ready for an engine to load.

    ``auto``: fetched to disk first, unless it is there; a restart then finds it. ``stream`` (or ``runai_streamer``):
    only the small files are fetched, and each rank reads its share of the weights from the source into its memory.
    Raises CheckpointError, and ConfigurationError where there are only pickles and ``allow_pickle`` is false.
    """
    if load_format in _NAMED_ELSEWHERE:
        log.warning("option.load_format=%s has no effect: which files hold the weights is seen by itself", load_format)
    elif load_format not in ("auto", *STREAMED):
        raise ConfigurationError(f"option.load_format={load_format}: it must be auto or stream")
    if load_format in STREAMED and local_path(str(uri)) is None:
        source = open_source(uri, revision=revision)
        if not isinstance(source, DirectorySource):  # which is a hub's own cache, when nobody may be asked
            checkpoint = _streamed(source, uri, revision, allow_pickle)
            if checkpoint is not None:
                return checkpoint
    path = fetch(uri, revision=revision)
    if not allow_pickle:
        _refuse_pickles([file.name for file in path.iterdir()], str(uri))
    return Checkpoint(path, allow_pickle=allow_pickle)


def _streamed(source: Source, uri: str | Path, revision: str | None, allow_pickle: bool) -> Checkpoint | None:
    """The checkpoint with its small files fetched; None when its weights cannot be streamed."""
    entries = source.entries()
    files = _safetensors(source, entries)
    if not files:
        names = [entry.name for entry in entries]
        if not allow_pickle:
            _refuse_pickles(names, source.uri)
        reason = "only safetensors can be streamed; convert it with `bloomery shard SRC DST`"
        if presharded.CONFIG in names:
            reason = "it is split for its ranks, each of which then maps its own files only"
        log.warning("option.load_format=stream: %s is fetched to disk: %s", source.uri, reason)
        return None
    small = [name for name in wanted_files(entry.name for entry in entries) if not name.endswith(".safetensors")]
    path = fetch(uri, revision=revision, allow_patterns=[glob.escape(name) for name in small], source=source)
    if not (path / "config.json").is_file():
        found = ", ".join(small[:8]) or "weights alone"
        raise CheckpointError(f"{source.uri} is not a model directory: there is no config.json, but {found}.")
    vouched = source.checksummed(files) if FetchOptions.read().verify else files
    return Checkpoint(path, source, tuple(vouched), revision, allow_pickle)


def _safetensors(source: Source, entries: Sequence[Entry]) -> list[Entry]:
    """The files that hold the weights; none when they are no safetensors, or are split and must be joined."""
    found = {entry.name: entry for entry in entries}
    if presharded.CONFIG in found:
        return []
    with contextlib.closing(source.connect()) as connection:
        names = weight_files(list(found), lambda name: read_bytes(connection, found[name]), source.uri)
    return [found[name] for name in names] if all(name.endswith(".safetensors") for name in names) else []


def _refuse_pickles(names: Sequence[str], where: str) -> None:
    if not any(name.endswith(".safetensors") for name in names):
        for name in names:
            if _PICKLE.fullmatch(name):
                raise ConfigurationError(refusal(f"{where.rstrip('/')}/{name}"))


def refusal(file: str) -> str:
    """Why a pickle is not loaded."""
    return (
        f"option.allow_pickle=false: {file} is a pickle, and there are no safetensors; convert the checkpoint with "
        "`bloomery shard SRC DST`, or allow it (only tensors are unpickled)"
    )
