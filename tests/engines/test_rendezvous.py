"""The ranks of one machine meet where nobody else can reach them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.rank_pair import run_pair

from bloomery.engines import rendezvous

MEET = """
import json, os, sys
sys.path.insert(0, {repository!r})
import torch
from bloomery.engines import deepspeed
from tests.support.connections import listening
deepspeed.start_ranks(2, "gloo")
tensor = torch.ones(1)
torch.distributed.all_reduce(tensor)
print(json.dumps(dict(sum=float(tensor), listening=sorted(listening(os.getpid())))), flush=True)
torch.distributed.barrier()
"""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_ranks_listen_on_loopback_alone() -> None:
    ranks = run_pair(MEET.format(repository=str(Path(__file__).parents[2])))
    assert [rank["sum"] for rank in ranks] == [2.0, 2.0]
    assert {address for rank in ranks for address in rank["listening"]} == {"0100007F"}


def test_ranks_of_several_machines_meet_in_torchs_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "192.0.2.7")
    assert rendezvous.method() is None
