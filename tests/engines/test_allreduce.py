"""The choice between gloo and DeepSpeed's shared-memory operator, and its compilation beside a running server."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.rank_pair import CONTAINER, run_pair

from bloomery.engines import allreduce, shm_build, shm_operator
from bloomery.errors import ConfigurationError

CHOOSE = """
import json, logging, os, sys, time
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
import torch
torch.set_num_threads(1)
from bloomery.engines import allreduce, deepspeed
deepspeed.start_ranks(2, "gloo")
started = time.monotonic()
choice = allreduce.choose({preference!r})
seconds = time.monotonic() - started
tensor = torch.ones(2048) * (1 + int(os.environ["RANK"]))
from deepspeed import comm
comm.inference_all_reduce(tensor)
names = [n for n in os.listdir("/dev/shm") if os.environ["MASTER_PORT"] in n]
print(json.dumps(dict(kind=choice.kind, reason=choice.reason, sum=float(tensor[7]), names=names, seconds=seconds,
                      level=comm.comm.cdb.shm_vector_kernel_level)), flush=True)
"""

# A waiting rank: does its control thread run, in a collective of each kind?
TICK = (
    CHOOSE.rsplit("print", 1)[0]
    + """
import threading
ticks, stop = [], threading.Event()
def tick():
    while not stop.wait(0.02):
        ticks.append(time.monotonic())
threading.Thread(target=tick).start()
torch.distributed.barrier()
if os.environ["RANK"] == "1":
    time.sleep(0.6)
ticks.clear()
comm.inference_all_reduce(tensor)
during = len(ticks)
stop.set()
print(json.dumps(dict(kind=choice.kind, ticks=during)), flush=True)
"""
)

# The row-parallel layers of a sharded model, through our kernels.
LAYERS = """
import json, os, sys, torch
torch.set_num_threads(1)
from bloomery.engines import deepspeed, linear
deepspeed.start_ranks(2, "gloo")
import deepspeed
from torch import nn
from deepspeed.module_inject.layers import LinearAllreduce, LinearLayer, LmHeadLinearAllreduce, set_autotp_mode
torch.manual_seed(1)
width = {width}
whole = nn.ModuleDict(dict(up=nn.Linear(width, 4 * width), down=nn.Linear(4 * width, width),
                           lm_head=nn.Linear(width, 999, bias=False))).requires_grad_(False)
x = torch.randn(3, 2, width)
expected = whole.lm_head(whole.down(whole.up(x).relu()))
group = torch.distributed.group.WORLD
sharded = nn.ModuleDict(dict(up=LinearLayer(whole.up, group, name="up"),
                             down=LinearAllreduce(whole.down, group, name="down"),
                             lm_head=LmHeadLinearAllreduce(whole.lm_head, group)))
report = linear.{change}
got = sharded.lm_head(sharded.down(sharded.up(x).relu()))
print(json.dumps(dict(error=linear.logits_error(expected, got), report=str(report),
                      kinds=[type(m).__name__ for m in sharded.values()])))
"""

# A head that every rank holds whole, as DeepSpeed's injection leaves it.
HEAD = """
import json, os, sys, torch
torch.set_num_threads(1)
from bloomery.engines import deepspeed, linear
deepspeed.start_ranks(2, "gloo")
from torch import nn
torch.manual_seed(1)
model = nn.ModuleDict(dict(embed=nn.Embedding({vocabulary}, 512), lm_head=nn.Linear(512, {vocabulary})))
model.requires_grad_(False)
if {tied}:
    model.lm_head.weight = model.embed.weight
x = torch.randn(3, 2, 512)
expected = model.lm_head(x)
before = linear.resident_bytes(model)
report = linear.{change}(model)
print(json.dumps(dict(error=linear.logits_error(expected, model.lm_head(x)), report=str(report),
                      split=model.lm_head.rows is not None, shape=list(model.lm_head(x).shape),
                      share=linear.resident_bytes(model) / before)))
"""


def test_an_unknown_preference_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'mpi' is not one of auto, gloo, shm"):
        allreduce.choose("mpi")


def test_one_rank_needs_none() -> None:
    assert allreduce.choose("auto").kind == "none"


def test_a_small_shared_memory_is_an_obstacle_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shm_operator.shutil.disk_usage("/")
    monkeypatch.setattr(shm_operator.shutil, "disk_usage", lambda path: usage.__class__(64 << 20, 0, 64 << 20))
    assert "64 MiB free and 2 ranks need 132" in shm_operator.obstacle(2)
    assert "--shm-size=197m" in shm_operator.obstacle(2)


def test_a_neighbours_buffers_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shm_operator, "SHARED_MEMORY", tmp_path)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "2950")
    mine = tmp_path / f"deepspeed_allreduce_buffer_{os.getuid()}_127.0.0.1_2950_1"
    others = [tmp_path / f"{mine.name}0", tmp_path / mine.name.replace("2950_1", "29501_1")]
    for path in (mine, *others):
        path.touch()
    shm_operator.remove_name(1)
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_without_the_operator_ranks_use_gloo_and_a_failing_compiler_harms_nobody(tmp_path: Path) -> None:
    compiler = _script(tmp_path / "c++", '[ "$1" = --version ] && exit; echo "no such header" >&2; exit 1')
    env = {"TORCH_EXTENSIONS_DIR": str(tmp_path), "CXX": str(compiler)}
    keeps_running = CHOOSE + f"\ndeadline = time.monotonic() + 90\n{_WAIT_FOR_FAILURE}"
    ranks = run_pair(keeps_running.format(preference="auto"), env)
    assert [rank["kind"] for rank in ranks] == ["gloo", "gloo"]
    assert [rank["sum"] for rank in ranks] == [3.0, 3.0]
    assert "compiled in the background" in ranks[0]["reason"]
    assert ranks[1]["reason"] == ranks[0]["reason"]
    failed = list((tmp_path / "bloomery").glob("*.failed"))
    assert len(failed) == 1
    assert "no such header" in failed[0].read_text()
    again = run_pair(CHOOSE.format(preference="auto"), env)
    assert f"remove {failed[0]}" in again[0]["reason"]


_WAIT_FOR_FAILURE = """
from bloomery.engines import shm_operator
while os.environ["RANK"] == "0" and time.monotonic() < deadline:
    if shm_operator.compiled_path().with_suffix(".failed").exists():
        break
    time.sleep(0.1)
print(json.dumps(dict(kind=choice.kind, reason=choice.reason, sum=float(tensor[7]))), flush=True)
"""


def test_without_a_compiler_nothing_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no C++ compiler (no-such-compiler)" in shm_operator.build_in_background()
    assert list(tmp_path.iterdir()) == []


def test_what_was_compiled_when_the_image_was_built_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(shm_operator, "INSTALLED", tmp_path / "installed")
    cached = shm_operator.compiled_path()
    assert cached.parent == tmp_path / "cache" / "bloomery"
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / cached.name).touch()
    assert shm_operator.compiled_path() == tmp_path / "installed" / cached.name


def test_compiling_in_the_foreground_ends_with_the_compilers_words(tmp_path: Path) -> None:
    compiler = _script(tmp_path / "c++", '[ "$1" = --version ] && exit; echo "no such header" >&2; exit 1')
    program = [sys.executable, shm_build.__file__, "--into", str(tmp_path / "into")]
    done = subprocess.run(program, env=os.environ | {"CXX": str(compiler)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no such header" in done.stderr
    assert not list((tmp_path / "into").glob("*.so"))


def test_without_memory_for_the_compiler_nothing_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(shm_operator, "BUILD_MEMORY", 2**60)
    assert "takes" in shm_operator.build_in_background()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_the_compiler_ends_with_the_process_that_started_it(tmp_path: Path, ending: signal.Signals) -> None:
    started = tmp_path / "started"
    compiler = _script(tmp_path / "c++", f"echo $$ >> {started}; sleep 300; true")
    code = (
        "from bloomery.engines import shm_operator; import time; "
        "print(shm_operator.build_in_background(), flush=True); time.sleep(300)"
    )
    env = os.environ | {
        "TORCH_EXTENSIONS_DIR": str(tmp_path / "cache"),
        "CXX": str(compiler),
        "PYTHONPATH": str(CONTAINER),
    }
    server = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert "being compiled" in server.stdout.readline()
        _wait(lambda: started.exists() and started.read_text().strip() != "", 120)
        compilers = [int(pid) for pid in started.read_text().split()]
    finally:
        server.send_signal(ending)
        server.wait()
        server.stdout.close()
    _wait(lambda: not any(_runs(pid) for pid in compilers), 10)
    assert not list((tmp_path / "cache" / "bloomery").glob("*.failed"))


@pytest.mark.parametrize(("width", "change"), [(32, "optimize_"), (384, "optimize_"), (256, "quantize_")])
def test_row_parallel_layers_keep_their_all_reduce(width: int, change: str) -> None:
    call = f"{change}(sharded{', include_head=True' if change == 'quantize_' else ''})"
    ranks = run_pair(LAYERS.format(width=width, change=call))
    assert ranks[0]["error"] == ranks[1]["error"]
    assert ranks[0]["error"] < (0.05 if change == "quantize_" else 1e-5), ranks
    if width != 32:
        assert ranks[0]["kinds"].count("KernelLinear") >= 2


@pytest.mark.parametrize(("tied", "share"), [(True, 1.0), (False, 0.75)])
@pytest.mark.parametrize("change", ["optimize_", "quantize_"])
def test_ranks_share_out_a_large_head_that_each_holds_whole(tied: bool, share: float, change: str) -> None:
    ranks = run_pair(HEAD.format(vocabulary=16401, tied=tied, change=change))
    assert [rank["split"] for rank in ranks] == [True, True]
    assert max(rank["error"] for rank in ranks) < 1e-5
    assert ranks[0]["shape"] == [3, 2, 16401]
    assert [rank["share"] for rank in ranks] == pytest.approx([share, share], abs=0.01)


def test_a_small_head_is_computed_by_every_rank() -> None:
    ranks = run_pair(HEAD.format(vocabulary=1000, tied=False, change="optimize_"))
    assert [rank["split"] for rank in ranks] == [False, False]


def test_a_rank_that_waits_in_gloo_can_still_answer() -> None:
    ranks = run_pair(TICK.format(preference="gloo"))
    assert ranks[0]["ticks"] >= 10


@pytest.fixture(scope="module")
def compiled() -> Path:
    """The real operator, compiled by the product's own background build when this machine has none yet."""
    path = shm_operator.compiled_path()
    if not path.exists():
        said = shm_operator.build_in_background()
        assert "background" in said, said
        _wait(path.exists, 280)
    return path


@pytest.mark.full
def test_shared_memory_sums_and_leaves_no_name_behind(compiled: Path) -> None:
    ranks = run_pair(CHOOSE.format(preference="shm"))
    for rank in ranks:
        assert (rank["kind"], rank["sum"], rank["names"], rank["level"] >= 1) == ("shm", 3.0, [], True)


@pytest.mark.full
def test_the_measurement_decides_alike_on_all_ranks(compiled: Path) -> None:
    ranks = run_pair(CHOOSE.format(preference="auto"))
    assert ranks[0]["kind"] == ranks[1]["kind"]
    assert "us, gloo" in ranks[0]["reason"]
    assert ranks[0]["sum"] == ranks[1]["sum"] == 3.0
    assert ranks[0]["level"] == ranks[1]["level"]
    assert ranks[0]["seconds"] < 10


@pytest.mark.full
def test_a_rank_that_waits_in_shared_memory_can_still_answer(compiled: Path) -> None:
    ranks = run_pair(TICK.format(preference="shm"))
    assert ranks[0]["kind"] == "shm"
    assert ranks[0]["ticks"] >= 10


def _script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
