"""A handler that does what each request tells it to, for tests of what happens around handlers."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bloomery.protocol.frames import Request
from bloomery.serving.model import Model
from bloomery.settings.model import ModelSettings
from bloomery.workers.answer import Answer
from bloomery.workers.limits import Limits

FAST = Limits(
    state_interval=0.1,
    ping_interval=0.1,
    silence=5.0,
    peer_grace=0.5,
    cancel_grace=0.3,
    reader_grace=0.2,
    terminate_grace=5.0,
    back_off=(0.0, 0.05),
)

HANDLER = """
import gc, json, os, random, signal, sys, threading, time
from pathlib import Path
from bloomery.processes import control, rank
from djl_python import Output
from djl_python.connection import Connection

RANK = int(os.environ.get("RANK", 0))

def note(name, value):
    with open(f"{name}.{RANK}", "a") as file:
        print(json.dumps(value), file=file)

def load(properties):
    action, _, who = properties.get("on_load", "").partition(":")
    note("loads", os.getpid())
    if who and int(who) != RANK:
        if action in ("raise", "kill", "exit"):
            time.sleep(600)  # as if in a collective
        return
    if action == "raise":
        raise ValueError("the weights are of the wrong shape")
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "exit":
        print("no such device", file=sys.stderr)
        os._exit(7)
    if action == "hang":
        rank.current.report("reading weights", 40)
        time.sleep(600)
    if action == "slow":
        rank.current.report("reading weights", 25)
        while not Path("go").exists():
            time.sleep(0.02)
    if action == "once" and len(Path(f"loads.{RANK}").read_text().splitlines()) > 1:
        os._exit(9)

def pieces(ask):
    for number in range(ask.get("count", 3)):
        if ask.get("fail_at") == number and ask.get("rank", RANK) == RANK:
            raise RuntimeError(f"broke at {number}")
        if ask.get("heed") and rank.current.cancelled:
            note("cancelled", number)
            return
        rank.current.step()
        note("pieces", number)
        yield "x" * ask["size"] if "size" in ask else f"t-{number};"
        time.sleep(ask.get("pause", 0))

def handle(inputs):
    if inputs.is_empty():
        load(inputs.get_properties())
        return None
    ask = inputs.get_as_json()
    note("requests", ask)
    mine = ask.get("rank", RANK) == RANK
    do = ask["do"]
    if do == "stream":
        return Output().add_stream_content(pieces(ask), output_formatter=None)
    if do == "raise" and mine:
        raise ValueError("wrong number")
    if do == "strand":
        if mine:
            raise ValueError("wrong number")
        time.sleep(600)  # as if in a collective
    if do == "code" and mine:
        return Output(ask["code"], "as asked").add("told so")
    if do == "exit" and mine:
        print("about to leave", flush=True)
        os._exit(3)
    if do == "sleep" and mine:
        time.sleep(ask["seconds"])
    if do == "work":
        until = time.monotonic() + ask["seconds"]
        while time.monotonic() < until and not rank.current.cancelled:
            rank.current.step()
            time.sleep(0.01)
    if do == "wait":
        while not Path(ask["file"]).exists():
            time.sleep(0.01)
    if do == "garbage" and mine:
        sockets = [each._socket for each in gc.get_objects() if type(each) is Connection]
        sockets[0].sendall(b"\\xff" * 64)
    if do == "hold the interpreter" and mine:
        sum(range(10**13))  # one long call in C: no other thread of this process runs meanwhile
    if do == "hang later" and mine:  # once the answer is out, in a thread that holds the interpreter
        def hang():
            time.sleep(0.2)
            sum(range(10**13))
        threading.Thread(target=hang, daemon=True).start()
    if do == "garbage later" and mine:
        sockets = [each._socket for each in gc.get_objects() if type(each) is Connection]
        threading.Timer(0.2, sockets[0].sendall, [b"\\xff" * 64]).start()
    if do == "say more" and mine:  # bytes that follow the answer at once
        sending = Connection.send
        def send(self, buffers):
            Connection.send = sending
            sending(self, [*buffers, b"\\0\\1"])
        Connection.send = send
    if do == "garble" and mine:
        control.encode = lambda message: b"what?\\n"
        time.sleep(600)
    if do == "print":
        sys.stdout.buffer.write(bytes(range(256)) + b"y" * 100_000)
        sys.stdout.flush()
    if do == "random":
        note("random", random.random())
    if do == "environment":
        note("environment", dict(os.environ))
    return Output().add(json.dumps({"rank": RANK, "pid": os.getpid(), "text": ask.get("text")}))
"""


def settings(model_dir: Path, ranks: int = 1, **changes: Any) -> ModelSettings:
    """A model directory with the handler, and settings for it: plain Python for one rank, MPI for more."""
    (model_dir / "model.py").write_text(HANDLER)
    values: dict[str, Any] = {"name": model_dir.name, "model_dir": model_dir, "tensor_parallel_degree": ranks}
    return ModelSettings(**({**values, "engine": "MPI" if ranks > 1 else "Python"} | changes))


def ask(do: str, **arguments: Any) -> Request:
    """A request that tells the handler what to do."""
    return Request({}, [("data", json.dumps({"do": do, **arguments}).encode())])


def body(answer: Answer) -> Any:
    """A complete answer's JSON."""
    return json.loads(answer.content[0][1])


def notes(model_dir: Path, name: str, rank: int = 0) -> list[Any]:
    """What a rank's handler has noted under ``name``."""
    path = model_dir / f"{name}.{rank}"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until ``condition`` holds; its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.01)
    return value


def alive(pid: int) -> bool:
    """Whether the process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


StartModel = Callable[..., Awaitable[Model]]


@pytest.fixture
async def start_model(tmp_path: Path) -> AsyncIterator[StartModel]:
    """Starts models with real ranks, waits until they are loaded unless told otherwise, and stops them."""
    models: list[Model] = []

    async def start(ranks: int = 1, limits: Limits = FAST, wait: bool = True, name: str = "m", **changes: Any) -> Model:
        model_dir = tmp_path / name
        model_dir.mkdir()
        model = Model(settings(model_dir, ranks, **changes), limits=limits)
        models.append(model)
        await model.start()
        if wait:
            await model.loaded()
        return model

    before = asyncio.all_tasks()
    yield start
    for model in models:
        await model.stop(grace=0)
    await asyncio.sleep(0)
    leaked = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    assert not leaked
