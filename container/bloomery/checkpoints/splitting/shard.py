"""``bloomery shard``: split a checkpoint over ranks ahead of time, or write it in another precision."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bloomery.checkpoints.choice import wanted_files
from bloomery.checkpoints.fetch import fetch
from bloomery.checkpoints.progress import Progress
from bloomery.checkpoints.source import Connection, Entry, Source
from bloomery.checkpoints.sources import local_path, manifest, open_source
from bloomery.checkpoints.sources.manifest import Listed
from bloomery.checkpoints.sources.reading import read_bytes
from bloomery.checkpoints.splitting import presharded
from bloomery.checkpoints.splitting.number_formats import DTYPE_OPTIONS, TORCH_NAMES, named
from bloomery.checkpoints.splitting.output import DirectoryOutput, Output, Summing
from bloomery.checkpoints.splitting.output_s3 import S3Output
from bloomery.checkpoints.splitting.presharded import Rounding
from bloomery.checkpoints.splitting.shard_plan import FILE_BYTES, INDEXES, Plan, plan
from bloomery.checkpoints.splitting.shard_weights import Weights, write_weights
from bloomery.checkpoints.splitting.tensors import PickledTensors, SafetensorsTensors, Tensors, files_to_split
from bloomery.errors import CheckpointError, ConfigurationError

log = logging.getLogger(__name__)

_FORMAT = "1"  # of what is written; another number means that a checkpoint made before is not the same
# Descriptions of the weights of the source, which are not those of the result.
_REPLACED = ("config.json", manifest.NAME, "*.index.json", "*.safetensors", "*.bin", "*.pth", "*.pt", ".*", "*/.*")


@dataclass(frozen=True)
class Report:
    """What was made. ``made`` False: it was there already. ``rounded``: what int8 did, by weight."""

    target: str
    made: bool
    files: Mapping[str, Listed]
    rounded: Mapping[str, Rounding]
    bytes_read: int
    seconds: float


def shard(
    uri: str,
    target: str,
    *,
    tensor_parallel: int,
    dtype: str | None = None,
    revision: str | None = None,
    file_bytes: int = FILE_BYTES,
    seen: Callable[[int, int], object] | None = None,
) -> Report:
    """Write the checkpoint of ``uri`` into ``target``, split over ``tensor_parallel`` ranks.

    uri: whatever a checkpoint can be read from. target: a directory, or s3://bucket/prefix.
    dtype: fp32, fp16, bf16, or int8 for the linear layers that are split; None: as stored.
    With one rank and no int8 the result is an ordinary checkpoint (model.safetensors).
    seen: hears of bytes that are done, and of all.

    What ``target`` holds already is left alone when it was made of the same files in the same way. Raises
    CheckpointError, ConfigurationError and UnsupportedModelError; nothing is then to be seen in ``target``.
    """
    if tensor_parallel < 1:
        raise ConfigurationError(f"tensor_parallel={tensor_parallel}: it is the number of ranks, at least 1")
    if dtype is not None and dtype not in DTYPE_OPTIONS:
        raise ConfigurationError(f"dtype={dtype!r} is not one of {', '.join(DTYPE_OPTIONS)}")
    began = time.monotonic()
    with ExitStack() as stack:
        source = open_source(uri, revision=revision)
        entries = {entry.name: entry for entry in source.entries()}
        output = stack.enter_context(_open_output(target))
        made_from = _made_from(entries, tensor_parallel, dtype, file_bytes)
        if (there := output.existing()) is not None:
            if not any(name in there and made_from in output.read(name).decode() for name in INDEXES):
                raise CheckpointError(
                    f"{target} holds a checkpoint of other files, or one made otherwise: remove it, or name another"
                )
            return Report(target, False, there, {}, 0, time.monotonic() - began)
        connection = stack.enter_context(closing(source.connect()))
        if "config.json" not in entries:
            raise CheckpointError(f"{uri} holds no config.json: name the directory of a transformers checkpoint")
        configured = read_bytes(connection, entries["config.json"])
        config = _parsed(configured, uri)
        tensors = stack.enter_context(_tensors(source, revision, entries, connection, config))
        made = plan(tensors.stored, config, tensor_parallel, dtype, file_bytes)
        copied = [name for name in wanted_files(entries) if not any(fnmatchcase(name, p) for p in _REPLACED)]
        small = {"config.json": _with_dtype(configured, dtype)}
        sizes = {name: file.size for name, file in made.files.items()}
        sizes |= {name: entries[name].size for name in copied} | dict.fromkeys((*INDEXES, presharded.CONFIG, *small), 0)
        output.reserve(sizes)
        weights = _stream(
            made, tensors, output, Progress("splitting checkpoint", made.source_bytes, what=uri, seen=seen)
        )
        files = dict(weights.files)
        small = {name: text.encode() for name, text in made.index(weights.rounded, made_from).items()} | small
        for name in (*copied, *small):  # config.json last: what lacks it is no checkpoint to anybody
            files[name] = _write(output, name, small[name] if name in small else read_bytes(connection, entries[name]))
        output.publish(files)
        return Report(target, True, files, weights.rounded, made.source_bytes, time.monotonic() - began)


def _stream(made: Plan, tensors: Tensors, output: Output, progress: Progress) -> Weights:
    weights = write_weights(made, tensors, output, progress.add)
    tensors.check()
    progress.finish()
    return weights


def _open_output(target: str) -> AbstractContextManager[Output]:
    if target.startswith("s3://"):
        return S3Output(target)
    if "://" in target and not target.startswith("file://"):
        raise ConfigurationError(f"{target} is no place to write to: name a directory, or s3://bucket/prefix")
    path = local_path(target)
    return DirectoryOutput(path if path is not None else Path(target))


@contextmanager
def _tensors(
    source: Source,
    revision: str | None,
    entries: Mapping[str, Entry],
    connection: Connection,
    config: Mapping[str, Any],
) -> Iterator[Tensors]:
    uri = source.uri
    files = files_to_split(list(entries), lambda name: read_bytes(connection, entries[name]), uri)
    tensors: Tensors
    if files[0].endswith(".safetensors"):
        wanted = source.checksummed([entries[name] for name in files])
        tensors = SafetensorsTensors(source, wanted)
    else:
        log.info("%s: torch's own files can only be read from the disk", uri)
        local = fetch(uri, revision=revision, allow_patterns=files)
        tensors = PickledTensors([local / name for name in files], tied=config.get("tie_word_embeddings", True))
    try:
        yield tensors
    finally:
        tensors.close()


def _made_from(entries: Mapping[str, Entry], ranks: int, dtype: str | None, file_bytes: int) -> str:
    """Equal for equal sources that were treated equally."""
    hashed = hashlib.sha256(repr((_FORMAT, ranks, dtype, file_bytes)).encode())
    for name in sorted(entries):
        entry = entries[name]
        hashed.update(repr((name, entry.size, entry.identity)).encode())
    return hashed.hexdigest()


def _parsed(content: bytes, uri: str) -> dict[str, Any]:
    try:
        config = json.loads(content)
        if isinstance(config, dict):
            return config
    except ValueError as error:
        raise CheckpointError(f"{uri}/config.json is no JSON: {error}") from error
    raise CheckpointError(f"{uri}/config.json is no JSON object")


def _with_dtype(config: bytes, dtype: str | None) -> bytes:
    """config.json, which says what the weights are in: readers that are told nothing go by it."""
    if dtype is None or dtype == "int8":
        return config
    changed = json.loads(config)
    changed.pop("torch_dtype", None)
    changed["dtype"] = TORCH_NAMES[named(dtype)]
    return (json.dumps(changed, indent=2) + "\n").encode()


def _write(output: Output, name: str, content: bytes) -> Listed:
    writer = Summing(output.create(name, len(content)))
    writer.write(memoryview(content))
    return writer.close()
