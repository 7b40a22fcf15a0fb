"""``python -m bloomery.bench.streaming_clients KIND URI [RANK RANKS MEETING]``: tensors from S3, and what it took.

``ours``: our streamer; with RANKS, a rank of a tensor-parallel group, which takes half of the matrices in rows and half
in columns, and meets the others in the directory MEETING. ``runai``: run:ai's streamer, each tensor copied out of its
buffer, as a loader has to. Prints one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bloomery.bench.measure import PeakMemory, anonymous_bytes

_CONNECTIONS = 16


def ours(uri: str, rank: int, ranks: int, meeting: Path | None) -> dict[str, float]:
    """Everything, or this rank's share of it, checked."""
    from bloomery.checkpoints.sources import open_source
    from bloomery.checkpoints.streaming.handover import open_handover
    from bloomery.checkpoints.streaming.stream import Streamer
    from bloomery.checkpoints.streaming.stream_accounts import conclude
    from bloomery.checkpoints.streaming.stream_headers import read_headers
    from bloomery.engines.landing import DTYPES
    from bloomery.engines.streamed import StreamedReader

    source = open_source(uri)
    listed = [entry for entry in source.entries() if entry.name.endswith(".safetensors")]
    files = source.checksummed(listed)
    tensors = read_headers(source, files, _CONNECTIONS // ranks)
    handover = open_handover(rank, _told(meeting, rank, ranks))[0] if meeting is not None else None
    reader = StreamedReader(Streamer(source, _CONNECTIONS // ranks, handover), files, tensors, lambda name: name)
    filled = []
    for index, (name, (_, info)) in enumerate(tensors.found.items()):
        axis, shape = index % 2, list(info.shape)
        share = (shape[axis] * rank // ranks, shape[axis] * (rank + 1) // ranks)
        shape[axis] = share[1] - share[0]
        filled.append(torch.empty(shape, dtype=DTYPES[info.dtype]))
        reader.fill(filled[-1], name, [share] if ranks > 1 else None, axis if ranks > 1 else 0)
    reader.begin().wait()
    account = conclude(reader.stream, files, tensors.headers)
    reader.close()
    kept = sum(tensor.nbytes for tensor in filled)
    return {"bytes": kept, "read": account.read, "by_all": account.by_all, "checked": account.checked}


def runai(uri: str) -> dict[str, float]:
    """Everything."""
    from runai_model_streamer import SafetensorsStreamer  # type: ignore[import-not-found,import-untyped,unused-ignore]

    from bloomery.checkpoints.sources import open_source

    names = sorted(entry.name for entry in open_source(uri).entries() if entry.name.endswith(".safetensors"))
    with SafetensorsStreamer() as streamer:
        streamer.stream_files([f"{uri}/{name}" for name in names])
        filled = [tensor.clone() for _, tensor in streamer.get_tensors()]
    kept = sum(tensor.nbytes for tensor in filled)
    return {"bytes": kept, "read": kept, "by_all": kept, "checked": 0}


def _told(meeting: Path, rank: int, ranks: int) -> Callable[[bytes], list[bytes]]:
    """What engines have torch do: everybody's words, here as files."""
    turns = iter(range(1000))

    def tell(text: bytes) -> list[bytes]:
        turn = next(turns)
        (meeting / f".{turn}-{rank}").write_bytes(text)
        (meeting / f".{turn}-{rank}").rename(meeting / f"{turn}-{rank}")
        told = [meeting / f"{turn}-{other}" for other in range(ranks)]
        while not all(path.exists() for path in told):
            time.sleep(0.002)
        return [path.read_bytes() for path in told]

    return tell


def main() -> None:
    """See above."""
    kind, uri, *group = sys.argv[1:]
    rank, ranks = (int(group[0]), int(group[1])) if group else (0, 1)
    torch.set_num_threads(1)
    baseline = anonymous_bytes(os.getpid())
    with PeakMemory([os.getpid()]) as memory:
        wall, processor = time.perf_counter(), time.process_time()
        found = runai(uri) if kind == "runai" else ours(uri, rank, ranks, Path(group[2]) if group else None)
        found |= {"seconds": time.perf_counter() - wall, "processor": time.process_time() - processor}
    print(json.dumps(found | {"peak": memory.peaks[0] - baseline}), flush=True)
    os._exit(0)  # run:ai's threads do not always end


if __name__ == "__main__":
    main()
