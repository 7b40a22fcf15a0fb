"""The ranks of one machine meet where nobody else can reach them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.rank_pair import run_pair

from bloomery.engines import rendezvous
from bloomery.protocol import private

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
# Put before libc's: it writes down that a name was asked for.
NAME_LOOKUPS = """
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <unistd.h>
int getnameinfo(const struct sockaddr *a, socklen_t b, char *c, socklen_t d, char *e, socklen_t f, int flags) {
  int file = open(getenv("NAME_LOOKUPS"), O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (write(file, "x", 1) != 1) abort();
  close(file);
  return EAI_AGAIN;
}
"""
pytestmark = pytest.mark.skipif(
    not Path("/proc/net/tcp").exists() or shutil.which("cc") is None,
    reason="reads /proc, and compiles what stands before libc's getnameinfo",
)


def meet(env: Mapping[str, str]) -> set[str]:
    """Two ranks sum; the addresses on which they listen."""
    ranks = run_pair(MEET.format(repository=str(Path(__file__).parents[2])), env)
    assert [rank["sum"] for rank in ranks] == [2.0, 2.0]
    return {address for rank in ranks for address in rank["listening"]}


@pytest.fixture
def noted(tmp_path: Path) -> Mapping[str, str]:
    """An environment in which a question for a name leaves the file NAME_LOOKUPS."""
    source, library = tmp_path / "names.c", tmp_path / "names.so"
    source.write_text(NAME_LOOKUPS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library), "NAME_LOOKUPS": str(tmp_path / "lookups")}


def test_ranks_of_a_group_listen_on_loopback_and_ask_nobody_for_a_name(
    noted: Mapping[str, str], tmp_path: Path
) -> None:
    assert meet({**noted, private.CONTROL_SOCKET: str(tmp_path / "control.0")}) == {"0100007F"}
    assert not Path(noted["NAME_LOOKUPS"]).exists()


def test_ranks_without_a_server_listen_on_loopback_alone(noted: Mapping[str, str]) -> None:
    assert meet(noted) == {"0100007F"}
    assert Path(noted["NAME_LOOKUPS"]).exists(), "torch's store asks no more: what do a group's ranks need a file for?"


def test_ranks_of_several_machines_meet_in_torchs_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "192.0.2.7")
    assert rendezvous.method() is None
