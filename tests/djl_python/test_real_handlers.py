"""Handlers in the styles that DJLServing's users write, unchanged, behind the real server."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.server import Server, serving
from tests.support.tiny_models import tiny_model
from tests.support.worker_client import WorkerProcess, start_worker, wait_until

from bloomery.protocol.frames import Request
from djl_python.np_util import from_nd_list, to_nd_list

HANDLERS = Path(__file__).parents[1] / "data" / "handlers"
NEW_TOKENS = 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("gpt2", tmp_path_factory.mktemp("checkpoint") / "gpt2")


def model_dir(tmp_path: Path, name: str, *properties: str) -> Path:
    """A copy, because a handler's directory gets its __pycache__."""
    directory = shutil.copytree(HANDLERS / name, tmp_path / name)
    (directory / "serving.properties").write_text("\n".join(["engine=Python", *properties, ""]))
    return directory


def generated(server: Server, inputs: object) -> list[str]:
    reply = server.post({"inputs": inputs, "parameters": {"max_new_tokens": NEW_TOKENS}})
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/json"
    return [row["generated_text"] for row in reply.json()]


# --- a transformers model in the handler


def test_a_pipeline_in_a_global(tmp_path: Path, checkpoint: Path) -> None:
    with serving(model_dir(tmp_path, "pipeline", f"option.model_id={checkpoint}")) as server:
        (text,) = generated(server, "To be, or not")
        assert text.startswith("To be, or not")
        assert generated(server, "To be, or not") == [text]


def test_a_service_class(tmp_path: Path, checkpoint: Path) -> None:
    with serving(model_dir(tmp_path, "service", f"option.model_id={checkpoint}")) as server:
        first, second = generated(server, ["To be", "And by opposing"])
        assert first.startswith("To be")
        assert second.startswith("And by opposing")
        plain = server.request("POST", "/invocations", "To be", {"Content-Type": "text/plain"})
        assert plain.json()[0]["generated_text"].startswith("To be")
        wrong = server.post({"parameters": {}})
        assert (wrong.status, wrong.reason) == (424, "prediction failure")
        assert wrong.json() == {"code": 424, "message": "prediction failure", "error": "'inputs'"}


def test_streaming_with_streaming_utils_and_finalize(tmp_path: Path, checkpoint: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with serving(model_dir(tmp_path, "streaming", f"option.model_id={checkpoint}")) as server:
        ask = {"inputs": "To be", "parameters": {"max_new_tokens": NEW_TOKENS}}
        (whole,) = server.post(ask).json()
        reply = server.post({**ask, "stream": True}, scratch=str(scratch))
        assert reply.headers["content-type"] == "application/jsonlines"
        steps = [json.loads(line)["outputs"] for line in reply.body.splitlines()]
        assert all(len(step) == 1 for step in steps)
        assert "To be" + "".join(step[0] for step in steps) == whole
        wait_until(lambda: not list(scratch.iterdir()), "finalize has removed the scratch file")


# --- without a model


def test_joined_requests_by_their_batch_index(tmp_path: Path) -> None:
    directory = model_dir(tmp_path, "batching", "option.weight=2")
    with serving(directory) as server:
        assert server.post({"rows": [[1, 2, 3]]}).json()["scores"] == [12]
    (tmp_path / "private").mkdir()
    worker = start_worker(directory, tmp_path / "private")
    try:
        worker.initialise(weight="2")
        bodies = [b'{"rows": [[1, 2, 3]]}', b'{"rows": [[0, 0, 1], [1, 0, 0]]}']
        content = [(f"batch_{index:03}.data", body) for index, body in enumerate(bodies)]
        worker.send(Request({"handler": "handle", "batch_size": "2"}, content))
        answers = {key: json.loads(bytes(value)) for key, value in worker.read_head().content or []}
        assert answers == {
            "batch_0.data": {"scores": [12], "joined": 2},
            "batch_1.data": {"scores": [2, 2], "joined": 2},
        }
    finally:
        worker.stop()


def test_content_negotiation(tmp_path: Path) -> None:
    array = np.arange(4, dtype=np.float32)
    file = io.BytesIO()
    np.savez(file, array)
    with serving(model_dir(tmp_path, "negotiating")) as server:

        def ask(body: bytes | str, content_type: str, accept: str = "*/*") -> tuple[bytes, str]:
            reply = server.request("POST", "/invocations", body, {"Content-Type": content_type, "Accept": accept})
            assert reply.status == 200, reply.body
            return reply.body, reply.headers["content-type"]

        assert ask("hello", "text/plain", "text/csv") == (b"text,length\r\nhello,5\r\n", "text/csv")
        assert json.loads(ask("inputs\na\nb\n", "text/csv")[0]) == ["a", "b"]
        assert json.loads(ask('{"inputs": [1]}', "application/json")[0]) == [1]
        body, content_type = ask(to_nd_list([array]), "tensor/ndlist")
        assert content_type == "tensor/ndlist"
        np.testing.assert_array_equal(from_nd_list(body)[0], array * 2)
        body, content_type = ask(file.getvalue(), "tensor/npz", "tensor/npz")
        assert content_type == "tensor/npz"
        np.testing.assert_array_equal(np.load(io.BytesIO(body))["arr_0"], array * 2)


def test_images_in_forms(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(file, "PNG")
    boundary = "frontier"
    form = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="size"\r\n\r\n10\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    ).encode() + file.getvalue()
    form += f"\r\n--{boundary}--\r\n".encode()
    with serving(model_dir(tmp_path, "images")) as server:
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        reply = server.request("POST", "/invocations", form, kind)
        assert reply.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(reply.body)).size == (10, 5)
        alone = server.request("POST", "/invocations", file.getvalue(), {"Content-Type": "image/png"})
        assert Image.open(io.BytesIO(alone.body)).size == (8, 4)
        wrong = server.request("POST", "/invocations", b"no image", {"Content-Type": "image/png"})
        assert (wrong.status, wrong.reason) == (400, "Bad image")


def test_a_session(tmp_path: Path) -> None:
    directory = model_dir(tmp_path, "sessions", f"option.sessions_path={tmp_path / 'kept'}", "minWorkers=2")
    with serving(directory) as server:
        opened = server.post({"requestType": "NEW_SESSION"})
        mine = {"X-Amzn-SageMaker-Session-Id": opened.headers["x-amzn-sagemaker-session-id"]}
        assert server.post({"text": "a"}, **mine).json() == {"said": ["a"]}
        assert server.post({"text": "b"}, **mine).json() == {"said": ["a", "b"]}
        closed = server.post({"requestType": "CLOSE"}, **mine)
        assert closed.headers["x-amzn-sagemaker-closed-session-id"] == mine["X-Amzn-SageMaker-Session-Id"]
        over = server.post({"text": "c"}, **mine)
        assert (over.status, over.reason) == (410, "Gone")


def test_ranks_that_meet_in_a_collective(tmp_path: Path) -> None:
    directory = model_dir(tmp_path, "distributed", "option.tensor_parallel_degree=2", "option.mpi_mode=true")
    with serving(directory) as server:
        assert server.post({"value": 2}).json() == {"sum": 6.0}


def test_the_asynchronous_mode(tmp_path: Path) -> None:
    with serving(model_dir(tmp_path, "asynchronous", "option.async_mode=true")) as server:
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda number: server.post({"text": str(number)}).json(), range(16)))
        assert replies == [{"text": str(number), "adapters": []} for number in range(16)]
        stream = server.post({"text": "a b c", "stream": True})
        assert stream.headers["content-type"] == "application/jsonlines"
        assert [json.loads(line) for line in stream.body.splitlines()] == [{"token": word} for word in "abc"]


# --- adapters: functions like any other, which the property handler names


@pytest.fixture(params=["blocking", "asynchronous"])
def adapter_worker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WorkerProcess]:
    """A worker whose handler takes adapters, in either mode."""
    directory = model_dir(tmp_path, "asynchronous")
    arguments = ["--async-mode"]
    if request.param == "blocking":
        source = (directory / "model.py").read_text()
        (directory / "model.py").write_text(source.replace("async def unregister", "def unregister"))
        arguments = []
    worker = start_worker(directory, tmp_path, *arguments)
    yield worker
    worker.stop()


def change_adapter(worker: WorkerProcess, function: str, **properties: str) -> tuple[int, str, str]:
    worker.send(Request({"handler": function, "request_tracking_id": "1", **properties}, []))
    answer = worker.read_answer()
    return answer.head.code, answer.head.message, answer.text


def test_adapters_come_and_go(adapter_worker: WorkerProcess) -> None:
    if adapter_worker.process.args[-1] == "--async-mode":  # type: ignore[index]
        assert adapter_worker.initialise().head.code == 204
    assert change_adapter(adapter_worker, "register_adapter", name="a", src="s3://x")[:2] == (
        200,
        "Adapter a registered",
    )
    assert change_adapter(adapter_worker, "unregister_adapter", name="a")[:2] == (200, "Adapter a unregistered")


def test_what_is_wrong_with_an_adapter_is_told(adapter_worker: WorkerProcess) -> None:
    code, message, body = change_adapter(adapter_worker, "register_adapter", name="a")
    assert (code, message) == (424, "prediction failure")
    assert "Invalid source of adapter a" in body


def test_a_handler_without_the_function_says_which_it_has(adapter_worker: WorkerProcess) -> None:
    code, _message, body = change_adapter(adapter_worker, "update_adapter", name="a", src="x")
    assert code == 424
    assert "no function 'update_adapter'" in body
    assert "register_adapter, unregister_adapter" in body
