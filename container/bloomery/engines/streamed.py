"""Read a rank's share of a checkpoint straight from where it lies: ``option.load_format=stream``.

Ranges of rows are read by the rank that holds them. What several ranks need, whole or in columns, and what is too
small for a request of its own, is read once for all ranks of this machine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch

from bloomery.checkpoints import Checkpoint
from bloomery.checkpoints.disk.options import FetchOptions
from bloomery.checkpoints.safetensors_header import TensorInfo
from bloomery.checkpoints.source import Entry
from bloomery.checkpoints.streaming.blocks import CHUNK_BYTES, Segment
from bloomery.checkpoints.streaming.handover import open_handover
from bloomery.checkpoints.streaming.stream import Batch, Streamer
from bloomery.checkpoints.streaming.stream_accounts import conclude
from bloomery.checkpoints.streaming.stream_headers import Tensors, read_headers
from bloomery.engines import rendezvous
from bloomery.engines.landing import Everywhere, Range, TensorLanding
from bloomery.engines.reader import CheckpointReader, Reader, check_numbers, share_of
from bloomery.engines.split_safetensors import StoredScales
from bloomery.errors import CheckpointError
from bloomery.processes import rank

log = logging.getLogger(__name__)

# Enough to keep the connections busy while a block of layers is repacked.
AHEAD_BYTES = 256 << 20
_FEWEST_CONNECTIONS = 4  # of a rank; together they have as many as a fetch
# A share of less than this costs more as a request of its own than it would cost every rank to get the whole.
_SMALL_BYTES = 256 << 10


def open_reader(checkpoint: Checkpoint, rename: Callable[[str], str | None], ranks: int = 1) -> Reader:
    """What fills a model from ``checkpoint``; ``ranks`` that have met each other do so together."""
    if checkpoint.source is None:
        return CheckpointReader(checkpoint.path, rename, allow_pickle=checkpoint.allow_pickle)
    connections = max(_FEWEST_CONNECTIONS, FetchOptions.read().connections // ranks)
    tensors = read_headers(checkpoint.source, checkpoint.files, connections)
    handover, reason = open_handover(rank.current.index, rendezvous.tell) if ranks > 1 else (None, "")
    if reason:
        log.warning("%s, so this rank reads all that it needs by itself", reason)
    staging = _pinned if torch.cuda.is_available() else None
    stream = Streamer(checkpoint.source, connections, handover, staging)
    return StreamedReader(stream, checkpoint.files, tensors, rename)


def _pinned() -> memoryview:
    """A buffer that a GPU copies from without another copy."""
    return torch.empty(CHUNK_BYTES, dtype=torch.uint8, pin_memory=True).numpy().data


class StreamedReader:
    """The tensors of a stream's ``files``, by the names that the model uses."""

    def __init__(
        self, stream: Streamer, files: Sequence[Entry], tensors: Tensors, rename: Callable[[str], str | None]
    ) -> None:
        self.where, self.ahead = stream.source.uri, AHEAD_BYTES
        self.scales: dict[int, StoredScales] = {}  # an int8 checkpoint is split for its ranks, and read from disk
        self.stream, self._files, self._headers = stream, files, tensors.headers
        self._found: dict[str, tuple[Entry, TensorInfo]] = {}
        for stored, place in tensors.found.items():
            if (wanted := rename(stored)) is not None:
                self._found[wanted] = place
        self._own: list[Segment] = []
        self._shared: dict[str, list[TensorLanding]] = {}  # a tensor may belong in several places

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def fill(
        self,
        target: torch.Tensor,
        name: str,
        slices: Sequence[Range] | None = None,
        axis: int = 0,
        copied: Callable[[int], object] = lambda count: None,
    ) -> None:
        """As ``Reader``."""
        if name not in self._found:
            raise CheckpointError(f"{self.where} holds no tensor {name!r}; it has {len(self._found)} others")
        entry, info = self._found[name]
        ranges = share_of(self.where, name, info.shape, target.shape, slices, axis)
        landing = TensorLanding(target, info, axis, ranges, copied)
        check_numbers(self.where, name, landing.dtype, target.dtype)
        # By what all ranks see alike: a rank whose own share is empty must still share the tensor with the others.
        whole = slices is None or axis != 0 or info.length < _SMALL_BYTES
        if whole and info.length:
            self._shared.setdefault(name, []).append(landing)
        elif not whole:
            runs = [run for run in landing.runs() if run[0] < run[1]]
            self._own += [Segment(landing, entry, info.start + start, start, stop - start) for start, stop in runs]

    def begin(self) -> Batch:
        """As ``Reader``."""
        own, shared, self._own, self._shared = self._own, self._shared, [], {}
        return self.stream.read(own, [self._whole(name, landings) for name, landings in shared.items()])

    def _whole(self, name: str, landings: Sequence[TensorLanding]) -> Segment:
        entry, info = self._found[name]
        landing = landings[0] if len(landings) == 1 else Everywhere(landings)
        return Segment(landing, entry, info.start, 0, info.length)

    def finish(self) -> None:
        """As ``Reader``: compares checksums."""
        log.info("streamed %s: %s", self.where, conclude(self.stream, self._files, self._headers))

    def close(self, error: BaseException | None = None) -> None:
        """As ``Reader``."""
        self.stream.close(error)
