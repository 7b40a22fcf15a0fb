"""Where the ranks of one machine meet: in a file of their group; and how they tell each other small things then.

torch's own store listens on all interfaces whatever MASTER_ADDR says (2.13), whoever reaches its port may write into
it, and it asks the name server what each peer is called, which takes seconds where none answers. A file in the group's
private directory has none of these troubles. Ranks that no server started have no such directory; they meet at
MASTER_PORT, where rank 0 makes the listening socket itself, on loopback.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch.distributed import FileStore, Store, TCPStore  # type: ignore[attr-defined,unused-ignore]
from torch.distributed.constants import default_pg_timeout
from torch.distributed.rendezvous import register_rendezvous_handler

from bloomery.processes import rank
from bloomery.protocol import private

_SCHEME = "bloomery"
_TOLD_BYTES = 1024
_Meeting = tuple[Store, int, int]  # the store, this rank, how many there are


def method() -> str | None:
    """What to pass as ``init_method``; None, torch's own way by the environment, when there are other machines."""
    if os.environ.get("MASTER_ADDR") not in ("127.0.0.1", "localhost"):
        return None
    if Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # gloo would listen on the address of the host's name
    return f"{_SCHEME}://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"


def tell(text: bytes) -> list[bytes]:
    """What each rank tells all others, at most 1022 bytes, in the order of the ranks. All of them must call it."""
    if len(text) > _TOLD_BYTES - 2:
        raise ValueError(f"{len(text)} bytes are too much to tell")
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    padded = (len(text).to_bytes(2, "big") + text).ljust(_TOLD_BYTES, b"\0")
    mine = torch.tensor(list(padded), dtype=torch.uint8, device=device)
    everybody = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(everybody, mine)
    told = [bytes(one.cpu().tolist()) for one in everybody]
    return [one[2 : 2 + int.from_bytes(one[:2], "big")] for one in told]


def _meet(_url: str, timeout: timedelta = default_pg_timeout, **_: Any) -> Iterator[_Meeting]:
    ranks = rank.current.world_size
    control = os.environ.get(private.CONTROL_SOCKET)
    store = _at_port(ranks, timeout) if control is None else FileStore(str(Path(control).with_name("ranks")), ranks)
    store.set_timeout(timeout)
    yield store, rank.current.index, ranks


def _at_port(ranks: int, timeout: timedelta) -> TCPStore:
    host, port = "127.0.0.1", int(os.environ["MASTER_PORT"])
    first = rank.current.index == 0
    listener = socket.create_server((host, port)).detach() if first else None
    return TCPStore(host, port, ranks, first, timeout, master_listen_fd=listener)


register_rendezvous_handler(_SCHEME, _meet)  # type: ignore[no-untyped-call,unused-ignore]
