"""/ping says how a model fares and nothing that somebody could use: no text of a handler, no path, no traceback."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
from tests.support.server import Reply, Server, model_directory, serving

# The first load works; every later one waits, or fails in words that are nobody's business.
MODEL = """
import os, time
from djl_python import Output

def handle(inputs):
    if not inputs.is_empty():
        return Output().add("fine")
    base = inputs.get_property("base")
    if not os.path.exists(base + "/loaded"):
        open(base + "/loaded", "w").close()
        return None
    while not os.path.exists(base + "/go"):
        time.sleep(0.01)
    raise RuntimeError("xyzzy-text of the handler at /xyzzy/path")
"""
ENDLESS = "engine=Python\nretry_threshold=1000\ncrash_loop_limit=1000\n"  # restarts are no crash loop here
FIELDS = {"status", "state", "phase", "percent", "elapsed"}


def until(server: Server, condition: Callable[[Reply], bool]) -> Reply:
    """The first answer of /ping of that kind."""
    deadline = time.monotonic() + 30
    while not condition(reply := server.ping()):
        assert time.monotonic() < deadline, reply
        time.sleep(0.01)
    return reply


def says_nothing(reply: Reply, tmp_path: Path) -> None:
    for word in ("xyzzy", str(tmp_path), "Traceback", "model.py", "File "):
        assert word not in reply.body.decode() + str(reply.headers)


def test_while_a_model_loads_there_is_a_phase_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "loaded").touch()
    model = model_directory(tmp_path / "m", MODEL, f"engine=Python\noption.base={tmp_path}\n")
    with serving(model, ready=False) as server:
        reply = until(server, lambda reply: reply.json()["m"]["phase"] == "loading model")
        assert reply.status == 503
        assert set(reply.json()["m"]) == FIELDS
        says_nothing(reply, tmp_path)


def test_the_class_of_the_error_is_all_that_is_said_of_a_model_that_could_not_load_again(tmp_path: Path) -> None:
    model = model_directory(
        tmp_path / "m", MODEL, f"engine=Python\noption.base={tmp_path}\nretry_threshold=1000\ncrash_loop_limit=1000\n"
    )
    with serving(model) as server:
        psutil.Process(server.process.pid).children()[0].kill()
        (tmp_path / "go").touch()
        server.wait_for("xyzzy-text of the handler")  # the log has it
        reply = until(server, lambda reply: "error" in reply.json()["m"])
        state = reply.json()["m"]
        assert (state["status"], state["state"], state["error"]) == ("Unhealthy", "restarting", "WorkerError")
        assert set(state) == FIELDS | {"error"}
        says_nothing(reply, tmp_path)


def test_a_client_of_a_model_that_restarts_hears_no_path_and_no_traceback(tmp_path: Path) -> None:
    properties = f"option.base={tmp_path}\noption.predict_timeout=1\n{ENDLESS}"
    with serving(model_directory(tmp_path / "m", MODEL, properties)) as server:
        psutil.Process(server.process.pid).children()[0].kill()
        (tmp_path / "go").touch()
        server.wait_for("xyzzy-text of the handler")
        reply = server.post({})
        assert reply.status == 503
        for word in ("Traceback", "model.py", "File ", str(tmp_path / "m")):
            assert word not in reply.body.decode()


def test_head_and_post_are_answered_like_get(laboratory: Server) -> None:
    assert laboratory.request("POST", "/ping", b"{}").body == laboratory.ping().body
    head = laboratory.request("HEAD", "/ping")
    assert (head.status, head.body) == (200, b"")
