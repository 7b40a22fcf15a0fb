"""The worker loop, seen from the other end of its socket."""

from __future__ import annotations

import json
import os
import signal
import struct
from pathlib import Path

import pytest
from tests.support.worker_client import ServeHandler, WorkerProcess, running_worker, write_model

from bloomery.protocol import private
from bloomery.protocol.frames import Chunk, Dialect, Request, encode_request

ECHO = """
from djl_python import Input, Output

def handle(inputs):
    if inputs.is_empty():
        return None
    return Output().add(inputs.get_as_bytes())
"""

# Evaluates the body: a handler that does what a test says.
EVALUATE = """
import json, os, random, sys, time
from djl_python import Input, Output

def handle(inputs):
    if inputs.is_empty():
        return None
    result = eval(inputs.get_as_string(), globals(), {"inputs": inputs})
    return result if isinstance(result, Output) else Output().add_as_json(result)

def numbers(count, fail_at=None, done=None):
    try:
        for index in range(count):
            if index == fail_at:
                raise ValueError(f"failed at {index}")
            yield index
    finally:
        if done:
            open(done, "w").close()

def stream(*args, **kwargs):
    return Output().add_stream_content(numbers(*args, **kwargs))
"""


def error_of(body: str) -> str:
    return str(json.loads(body)["error"])


# --- requests and answers


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("tcp", [False, True])
def test_answers_over_both_kinds_of_socket_in_the_dialect_of_the_request(
    serve_handler: ServeHandler, dialect: Dialect, tcp: bool
) -> None:
    worker = serve_handler(ECHO, dialect=dialect, tcp=tcp)
    assert worker.initialise(a="b").head.code == 204
    assert worker.ask("hé").text == "hé"


@pytest.mark.parametrize("size", [0, 1, 2**16 - 1, 2**16, 2**16 + 1, 40 * 2**20 + 7])
def test_bodies_of_any_size_come_back_whole(serve_handler: ServeHandler, size: int) -> None:
    worker = serve_handler(ECHO)
    body = os.urandom(min(size, 2**20)) * (size // 2**20 + 1)
    assert worker.ask(body[:size]).body == body[:size]


def test_a_request_that_arrives_byte_by_byte_is_answered(serve_handler: ServeHandler) -> None:
    worker = serve_handler(ECHO)
    for byte in encode_request(Request({"handler": "handle"}, [("data", b"slow")])):
        worker.socket.sendall(bytes([byte]))
    assert worker.read_answer().text == "slow"


def test_requests_sent_together_are_answered_in_order(serve_handler: ServeHandler) -> None:
    worker = serve_handler(ECHO)
    for number in range(20):
        worker.send(Request({"handler": "handle"}, [("data", b"%d" % number)]))
    assert [worker.read_answer().text for _ in range(20)] == [str(number) for number in range(20)]


def test_property_values_become_text(serve_handler: ServeHandler) -> None:
    worker = serve_handler(EVALUATE)
    answer = worker.ask('Output().add_property("n", 3).add_property("t", True).add("x")')
    assert answer.head.properties == {"n": "3", "t": "True"}


def test_finalize_runs_after_the_answer_and_its_failure_harms_nobody(
    serve_handler: ServeHandler, tmp_path: Path
) -> None:
    worker = serve_handler(EVALUATE)
    marker = tmp_path / "done"
    assert worker.ask(f'Output().add("x").finalize(int, "no number").finalize(open, {str(marker)!r}, "w")').text == "x"
    assert worker.ask("1").text == "1"
    assert marker.exists()
    worker.wait_for_line("a finalize function failed")  # its log travels beside the answers


# --- what a handler finds in its input


def test_the_worker_adds_device_and_model_directory(serve_handler: ServeHandler, tmp_path: Path) -> None:
    worker = serve_handler(EVALUATE)
    properties = json.loads(worker.ask("inputs.get_properties()", X_A="b").text)
    assert properties == {
        "handler": "handle",
        "X-A": "b",
        "device_id": "-1",
        "model_dir": str(tmp_path / "0" / "model"),
    }


def test_the_tensor_parallel_degree_is_an_int_in_every_request(serve_handler: ServeHandler) -> None:
    worker = serve_handler(EVALUATE, "--tensor-parallel-degree", "2")
    assert worker.ask("inputs.get_properties()['tensor_parallel_degree']").text == "2"
    assert worker.ask("type(inputs.get_property('TENSOR_PARALLEL_DEGREE')).__name__").text == '"int"'


def test_private_properties_do_not_reach_the_handler(serve_handler: ServeHandler) -> None:
    worker = serve_handler(EVALUATE)
    body = f"sorted(key for key in inputs.get_properties() if key.startswith({private.PREFIX!r}))"
    answer = worker.ask(body, **{private.REQUEST_ID: "r1", private.SEED: "5", private.EVENTS: "1"})
    assert json.loads(answer.text) == [private.EVENTS]


def test_the_seed_of_a_request_seeds_random_and_the_libraries_that_are_loaded(serve_handler: ServeHandler) -> None:
    worker = serve_handler("import numpy\n" + EVALUATE)
    draw = "[random.random(), numpy.random.rand()]"
    first = worker.ask(draw, **{private.SEED: "5"}).text
    assert worker.ask(draw, **{private.SEED: "6"}).text != first
    assert worker.ask(draw, **{private.SEED: "5"}).text == first


def test_seeding_loads_no_library(serve_handler: ServeHandler) -> None:
    worker = serve_handler(EVALUATE)
    answer = worker.ask("[name in sys.modules for name in ('numpy', 'torch')]", **{private.SEED: "5"})
    assert json.loads(answer.text) == [False, False]


# --- failures


def test_a_result_that_cannot_be_framed_is_the_handlers_failure(serve_handler: ServeHandler) -> None:
    worker = serve_handler(EVALUATE)
    assert worker.ask('Output(code=70000).add("x")').head.code == 424
    assert worker.ask("Output().add_as_json(float('nan'))").head.code == 424
    assert worker.ask("1").text == "1"


def test_an_async_handler_is_refused_with_the_option_that_runs_it(serve_handler: ServeHandler) -> None:
    worker = serve_handler("async def handle(inputs):\n    return None\n")
    answer = worker.ask("x")
    assert answer.head.code == 424
    assert "option.async_mode=true" in error_of(answer.text)


def test_an_exception_without_text_is_told_by_its_type(serve_handler: ServeHandler) -> None:
    worker = serve_handler(EVALUATE)
    assert error_of(worker.ask("(_ for _ in ()).throw(AssertionError())").text) == "AssertionError"


def test_a_failure_prints_its_traceback(serve_handler: ServeHandler) -> None:
    worker = serve_handler(EVALUATE)
    worker.ask("stream(3, fail_at=0)")
    assert "ValueError: failed at 0" in worker.wait_for_line("ValueError: failed at 0")
    assert "in numbers" in worker.output


def test_sys_exit_in_a_handler_ends_the_process_with_its_code(serve_handler: ServeHandler) -> None:
    worker = serve_handler(EVALUATE)
    worker.send(Request({"handler": "handle"}, [("data", b"sys.exit(7)")]))
    assert worker.wait() == 7


# --- streams


def test_a_stream_that_fails_at_its_first_item_is_an_error_answer(serve_handler: ServeHandler) -> None:
    worker = serve_handler(EVALUATE)
    answer = worker.ask("stream(3, fail_at=0)")
    assert (answer.head.code, error_of(answer.text)) == (424, "failed at 0")


def test_a_stream_that_fails_later_ends_with_the_errors_text(serve_handler: ServeHandler) -> None:
    worker = serve_handler(EVALUATE)
    answer = worker.ask("stream(3, fail_at=2)")
    assert answer.head.code == 200
    assert answer.text == '{"outputs": 0}\n{"outputs": 1}\n'
    assert answer.chunks[-1] == Chunk(b"failed at 2", last=True)


def test_a_formatter_that_fails_is_the_streams_failure(serve_handler: ServeHandler) -> None:
    worker = serve_handler(EVALUATE)
    answer = worker.ask("Output().add_stream_content([1, 0], output_formatter=lambda item: str(1 // item))")
    assert answer.text == "1"
    assert b"division" in answer.chunks[-1].data


def test_an_empty_stream_is_a_stream(serve_handler: ServeHandler) -> None:
    worker = serve_handler(EVALUATE)
    answer = worker.ask("stream(0)")
    assert answer.head.content is None
    assert answer.chunks == [Chunk(b"", last=True)]


def test_items_leave_as_they_are_made(serve_handler: ServeHandler, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    worker = serve_handler(EVALUATE)
    body = f"Output().add_stream_content((open({str(gate)!r}).read() if i else 'first' for i in range(2)), None)"
    worker.send(Request({"handler": "handle"}, [("data", body.encode())]))
    assert worker.read_head().content is None
    assert worker.read_chunk().data == b"first"  # while the handler waits for the gate
    gate.write_text("second")
    assert [worker.read_chunk().data, worker.read_chunk().data] == [b"second", b""]


def test_a_peer_that_leaves_within_a_stream_closes_the_handlers_generator(
    serve_handler: ServeHandler, tmp_path: Path
) -> None:
    worker = serve_handler(EVALUATE)
    done = tmp_path / "done"
    worker.send(Request({"handler": "handle"}, [("data", f"stream(10**9, done={str(done)!r})".encode())]))
    worker.read_head()
    worker.close_connection()
    assert worker.wait() == 0
    assert done.exists()


# --- ranks


def rank_environment(rank: int, tmp_path: Path) -> dict[str, str]:
    return {
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        private.CONTROL_SOCKET: str(tmp_path / f"control.{rank}"),
    }


def start_rank(serve_handler: ServeHandler, rank: int, env: dict[str, str]) -> WorkerProcess:
    return serve_handler(EVALUATE, "--tensor-parallel-degree", "2", env=env, suffix=f".{rank}")


def test_a_rank_listens_on_its_own_socket_and_has_torchs_names(serve_handler: ServeHandler, tmp_path: Path) -> None:
    env = rank_environment(1, tmp_path)
    del env[private.CONTROL_SOCKET]
    worker = start_rank(serve_handler, 1, env)
    body = "[os.environ[name] for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE')]"
    assert json.loads(worker.ask(body).text) == ["1", "2", "1", "2"]


def test_a_rank_above_0_sends_no_body_to_bloomerys_server(serve_handler: ServeHandler, tmp_path: Path) -> None:
    worker = start_rank(serve_handler, 1, rank_environment(1, tmp_path))
    answer = worker.ask('Output(code=201, message="M").add_property("a", "b").add("x")')
    assert (answer.head.code, answer.head.message) == (201, "M")
    assert answer.head.content == []


def test_a_rank_above_0_runs_its_stream_and_sends_only_the_end(serve_handler: ServeHandler, tmp_path: Path) -> None:
    worker = start_rank(serve_handler, 1, rank_environment(1, tmp_path))
    answer = worker.ask("stream(3)")
    assert answer.head.content is None
    assert answer.chunks == [Chunk(b"", last=True)]


def test_a_rank_above_0_tells_of_a_failure_within_its_stream(serve_handler: ServeHandler, tmp_path: Path) -> None:
    worker = start_rank(serve_handler, 1, rank_environment(1, tmp_path))
    assert worker.ask("stream(3, fail_at=2)").chunks == [Chunk(b"failed at 2", last=True)]


def test_rank_0_sends_the_body_to_bloomerys_server(serve_handler: ServeHandler, tmp_path: Path) -> None:
    worker = start_rank(serve_handler, 0, rank_environment(0, tmp_path))
    assert worker.ask("1").text == "1"


# --- the end of a worker


def test_the_end_of_the_connection_ends_the_worker_quietly(serve_handler: ServeHandler, tmp_path: Path) -> None:
    worker = serve_handler(ECHO)
    worker.ask("x")
    worker.close_connection()
    assert worker.wait() == 0
    assert "Traceback" not in worker.output
    assert sorted(path.name for path in (tmp_path / "0").iterdir()) == ["model"]


def test_sigterm_ends_the_worker_quietly(serve_handler: ServeHandler, tmp_path: Path) -> None:
    worker = serve_handler(ECHO)
    worker.ask("x")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert "Traceback" not in worker.output
    assert sorted(path.name for path in (tmp_path / "0").iterdir()) == ["model"]


def test_the_pid_file_names_the_worker(serve_handler: ServeHandler, tmp_path: Path) -> None:
    worker = serve_handler(ECHO)
    assert int((tmp_path / "0" / "sock.pid").read_text()) == worker.process.pid


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (struct.pack(">h", -5), "claims -5 entries"),
        (struct.pack(">hi", 1, 20) + b"cut", "closed the connection within a frame"),
    ],
)
def test_a_broken_request_ends_the_worker_with_a_message(
    serve_handler: ServeHandler, data: bytes, message: str
) -> None:
    worker = serve_handler(ECHO)
    worker.socket.sendall(data)
    worker.close_connection()
    assert worker.wait() == 1
    line = worker.wait_for_line("request stream is broken")
    assert message in line


def test_unknown_arguments_of_later_versions_are_ignored(serve_handler: ServeHandler) -> None:
    worker = serve_handler(ECHO, "--log-level", "info", "--cluster-size", "1", "--some-later-flag", "7")
    assert worker.ask("x").text == "x"
    assert "--some-later-flag 7" in worker.output


@pytest.mark.parametrize("level", ["trace", "debug", "warn", "error", "off", "nonsense"])
def test_the_handshake_does_not_depend_on_the_log_level(serve_handler: ServeHandler, level: str) -> None:
    assert serve_handler(ECHO, "--log-level", level).ask("x").text == "x"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="0.19 to 0.27"),
        pytest.param(
            ["--cluster-size", "1", "--recommended-entry-point", "", "--log-level", "info", "--no-async-mode"],
            id="0.36",
        ),
        pytest.param(["--tensor-parallel-degree", "1", "--pipeline-parallel-degree", "1"], id="0.36 with MPI"),
    ],
)
def test_the_command_line_of_every_version_is_understood(serve_handler: ServeHandler, arguments: list[str]) -> None:
    assert serve_handler(ECHO, *arguments).ask("x").text == "x"


def test_what_0_36_and_its_mpi_add_is_int(serve_handler: ServeHandler) -> None:
    worker = serve_handler(EVALUATE, "--cluster-size", "1", "--pipeline-parallel-degree", "2")
    body = "[inputs.get_property('cluster_size'), inputs.get_property('pipeline_parallel_degree')]"
    assert json.loads(worker.ask(body).text) == [1, 2]


def test_workers_in_different_directories_do_not_interfere(tmp_path: Path) -> None:
    source = "from djl_python import Output\nimport helper\ndef handle(inputs):\n    return Output().add(helper.NAME)\n"
    for name in ("a", "b"):
        write_model(tmp_path / name, source)
        (tmp_path / name / "helper.py").write_text(f"NAME = {name!r}\n")
        (tmp_path / f"private-{name}").mkdir()
    with (
        running_worker(tmp_path / "a", tmp_path / "private-a") as a,
        running_worker(tmp_path / "b", tmp_path / "private-b") as b,
    ):
        assert (a.ask("x").text, b.ask("x").text) == ("a", "b")
        a.process.kill()
        a.wait()
        assert b.ask("x").text == "b"


@pytest.mark.parametrize(("compat", "message"), [("0.27", "prediction failure"), ("0.36", "invoke handler failure")])
def test_option_compat_chooses_the_words_of_a_failure(serve_handler: ServeHandler, compat: str, message: str) -> None:
    worker = serve_handler("def handle(inputs):\n    return None if inputs.is_empty() else 1 / 0\n")
    worker.initialise(compat=compat)
    assert json.loads(worker.ask("x", compat="other").text)["message"] == message
