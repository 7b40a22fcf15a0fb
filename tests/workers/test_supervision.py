"""What happens to requests and groups when ranks are lost."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from dataclasses import replace

import pytest
from tests.support.worker_models import FAST, alive, ask, body, notes, settings, until

from bloomery.errors import ServiceUnavailableError, StreamError
from bloomery.serving.model import Model
from bloomery.workers.command import PYTHON_ROOT


def pids(model: Model) -> tuple[int, ...]:
    return model.status().groups[0].pids


async def echo(model: Model) -> str:
    async with model.submit(ask("echo", text="hello")) as answer:
        return str(body(answer)["text"])


async def failure(model: Model, do: str, **arguments) -> str:
    with pytest.raises(ServiceUnavailableError) as caught:
        async with model.submit(ask(do, **arguments)):
            pass
    return str(caught.value)


async def test_a_rank_killed_during_a_request_fails_it_precisely_and_the_group_answers_again(start_model):
    model = await start_model(2)
    before = pids(model)

    async with asyncio.TaskGroup() as tasks:
        request = tasks.create_task(failure(model, "sleep", seconds=600))
        await until(lambda: notes(model.settings.model_dir, "requests", 1))
        os.kill(before[1], signal.SIGKILL)

    assert f"rank 1 (pid {before[1]}) was killed by signal 9 (SIGKILL)" in request.result()
    assert await echo(model) == "hello"
    assert not any(alive(pid) for pid in before)
    assert model.status().groups[0].restarts == 1


async def test_a_rank_killed_during_a_stream_ends_it_with_the_reason(start_model):
    model = await start_model(2)
    ranks = pids(model)

    async with model.submit(ask("stream", count=2, pause=600)) as answer:
        assert await anext(answer.stream) == b"t-0;"
        os.kill(ranks[0], signal.SIGKILL)
        with pytest.raises(StreamError, match=rf"rank 0 \(pid {ranks[0]}\) was killed by signal 9") as caught:
            await anext(answer.stream)

    assert caught.value.status == 503


async def test_an_idle_group_whose_rank_dies_restarts_by_itself(start_model):
    model = await start_model(2)
    before = pids(model)

    os.kill(before[0], signal.SIGKILL)

    await until(lambda: model.status().state == "ready" and not set(pids(model)) & set(before))


async def test_a_rank_that_exits_is_reported_with_its_code_and_its_last_words_go_to_the_log_alone(start_model, caplog):
    model = await start_model(2)

    message = await failure(model, "exit", rank=1)

    assert "rank 1 (pid " in message
    assert "exited with code 3" in message
    assert "about to leave" not in message
    await until(lambda: "about to leave" in caplog.text)


async def test_a_stopped_rank_is_noticed_within_two_seconds(start_model):
    model = await start_model(2, limits=replace(FAST, state_interval=0.5))
    before = pids(model)

    async with asyncio.TaskGroup() as tasks:
        request = tasks.create_task(failure(model, "sleep", seconds=600))
        await until(lambda: notes(model.settings.model_dir, "requests", 1))
        os.kill(before[1], signal.SIGSTOP)
        stopped_at = time.monotonic()

    assert time.monotonic() - stopped_at < 2.5
    assert f"rank 1 (pid {before[1]}) is stopped" in request.result()
    assert await echo(model) == "hello"


async def test_garbage_on_the_request_socket_ends_the_group(start_model):
    model = await start_model(2)

    assert "rank 1 answered garbage" in await failure(model, "garbage", rank=1)
    assert await echo(model) == "hello"


async def test_garbage_on_the_control_socket_ends_the_group(start_model):
    model = await start_model(2)

    assert re.search(
        r"rank 1 \(pid \d+\) answers garbage on its control socket", await failure(model, "garble", rank=1)
    )
    assert await echo(model) == "hello"


async def test_a_rank_that_does_not_answer_its_control_socket_ends_the_group(start_model):
    model = await start_model(2, limits=replace(FAST, silence=1))

    message = await failure(model, "hold the interpreter", rank=1)

    assert re.search(r"rank 1 \(pid \d+\) has not answered its control socket for 1 s", message)
    assert await echo(model) == "hello"


async def test_anything_may_be_printed(start_model):
    model = await start_model(2)

    async with model.submit(ask("print")) as answer:
        assert answer.code == 200
    assert await echo(model) == "hello"


async def test_a_request_without_progress_until_the_deadline_restarts_the_group(start_model):
    model = await start_model(2, predict_timeout=1)
    before = pids(model)

    message = await failure(model, "sleep", seconds=600, rank=1)

    assert "no answer and no sign of progress within predict_timeout=1 s" in message
    await until(lambda: model.status().state == "ready" and not set(pids(model)) & set(before))


async def test_a_request_that_makes_progress_past_the_deadline_is_cancelled_and_the_ranks_live_on(start_model):
    model = await start_model(2, predict_timeout=1)
    before = pids(model)

    assert "still working on the answer after predict_timeout=1 s" in await failure(model, "work", seconds=600)

    assert await echo(model) == "hello"
    assert pids(model) == before


async def test_a_stream_without_progress_restarts_the_group(start_model):
    model = await start_model(2, stream_idle_timeout=1)

    async with model.submit(ask("stream", count=2, pause=600)) as answer:
        assert await anext(answer.stream) == b"t-0;"
        with pytest.raises(StreamError, match="no sign of progress for stream_idle_timeout=1 s"):
            await anext(answer.stream)

    assert await echo(model) == "hello"


async def test_a_long_stream_is_no_matter_of_the_predict_timeout(start_model):
    model = await start_model(predict_timeout=0.5)

    async with model.submit(ask("stream", count=10, pause=0.1)) as answer:
        assert len([piece async for piece in answer.stream]) == 10


async def test_a_rank_that_failed_alone_and_left_its_peer_waiting_does_not_hold_the_group_up(start_model):
    model = await start_model(2)
    before = pids(model)

    async with model.submit(ask("strand", rank=1)) as answer:
        assert answer.code == 424
        assert body(answer)["error"] == "rank 1: wrong number"

    assert await echo(model) == "hello"
    assert not set(pids(model)) & set(before)


async def test_requests_wait_while_the_only_group_restarts(start_model):
    model = await start_model(2)
    os.kill(pids(model)[1], signal.SIGKILL)
    await until(lambda: model.status().state == "restarting")

    assert await echo(model) == "hello"


async def test_requests_that_wait_for_a_restart_too_long_are_told_why(start_model):
    endless = {"retry_threshold": 10**6, "crash_loop_limit": 10**6}
    model = await start_model(properties={"on_load": "once"}, predict_timeout=0.5, **endless)
    os.kill(pids(model)[0], signal.SIGKILL)
    await until(lambda: model.status().groups[0].restarts)

    with pytest.raises(ServiceUnavailableError, match=r"no worker group of model 'm' was able to serve for 0.5 s"):
        await echo(model)


async def test_a_crash_loop_marks_the_model_failed(start_model):
    model = await start_model(properties={"on_load": "once"}, retry_threshold=2)
    os.kill(pids(model)[0], signal.SIGKILL)

    await until(lambda: model.status().state == "failed")

    assert "3 failures in a row without an answer" in model.status().message
    with pytest.raises(ServiceUnavailableError, match="exited with code 9"):
        await echo(model)


async def test_answers_between_them_do_not_hide_a_crash_loop(start_model):
    model = await start_model(crash_loop_limit=3)

    for _ in range(2):
        await failure(model, "exit")
        assert await echo(model) == "hello"
    await failure(model, "exit")
    await until(lambda: model.status().state == "failed")

    assert "crash loop: workers were lost 3 times within 600 s" in model.status().message
    assert "exited with code 3" in model.status().message


async def test_losses_that_lie_further_apart_are_no_crash_loop(start_model):
    model = await start_model(crash_loop_limit=2, crash_loop_window=0.01)

    for _ in range(3):
        await failure(model, "exit")
        assert await echo(model) == "hello"


async def test_a_rank_that_hangs_without_any_request_is_noticed_and_replaced(start_model):
    model = await start_model(2, limits=replace(FAST, silence=600, idle_silence=1))
    before = pids(model)

    async with model.submit(ask("hang later", rank=1)) as answer:
        assert answer.code == 200

    await until(lambda: model.status().state == "ready" and not set(pids(model)) & set(before))
    assert await echo(model) == "hello"


async def test_a_server_that_stood_still_itself_does_not_blame_its_ranks(start_model):
    limits = replace(FAST, ping_interval=0.001, state_interval=600, silence=2, idle_silence=2)
    model = await start_model(2, limits=limits)
    before = pids(model)

    for pid in before:
        os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(0.2)  # by now each has been asked, and cannot answer
    for pid in before:
        os.kill(pid, signal.SIGCONT)
    # As if the machine had been paused: the answers wait to be read, and their time is over.
    time.sleep(2.5)  # noqa: ASYNC251
    await asyncio.sleep(0.2)

    assert await echo(model) == "hello"
    assert pids(model) == before


async def test_bytes_that_belong_to_no_request_end_the_group(start_model):
    model = await start_model(2)
    before = pids(model)

    async with model.submit(ask("garbage later", rank=1)) as answer:
        assert answer.code == 200

    await until(lambda: model.status().state == "ready" and not set(pids(model)) & set(before))
    assert await echo(model) == "hello"


async def test_bytes_that_follow_an_answer_at_once_fail_it_and_spoil_no_other(start_model):
    model = await start_model(2)

    async with asyncio.TaskGroup() as tasks:
        spoilt = tasks.create_task(failure(model, "say more", rank=1))
        others = [tasks.create_task(echo(model)) for _ in range(3)]

    assert "rank 1 answered garbage: 2 bytes after the end of an answer" in spoilt.result()
    assert [other.result() for other in others] == ["hello"] * 3


async def test_an_answer_between_two_crashes_starts_the_count_again(start_model):
    model = await start_model(retry_threshold=1)

    for _ in range(3):
        await failure(model, "exit")
        assert await echo(model) == "hello"


async def test_other_groups_serve_on_while_one_restarts(start_model):
    model = await start_model(min_workers=2)
    await until(lambda: all(group.state == "ready" for group in model.status().groups))
    os.kill(pids(model)[0], signal.SIGKILL)
    await until(lambda: model.status().groups[0].state == "restarting")

    assert model.status().state == "ready"
    assert await echo(model) == "hello"


PARENT = """
import asyncio, sys
from pathlib import Path
from bloomery.serving.model import Model
from bloomery.settings.model import ModelSettings

async def main():
    model = Model(ModelSettings("m", Path(sys.argv[1]), engine="MPI", tensor_parallel_degree=2))
    await model.start()
    await model.loaded()
    print(*model.status().groups[0].pids, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def temporary_directory():
    """For what a killed server cannot clean up; short, because sockets lie in it."""
    with tempfile.TemporaryDirectory() as directory:
        yield directory


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_ranks_do_not_outlive_a_server_that_is_killed(tmp_path, temporary_directory):
    settings(tmp_path, ranks=2)
    environment = os.environ | {"PYTHONPATH": str(PYTHON_ROOT), "TMPDIR": temporary_directory}
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    parent = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
    ranks = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(ranks) == 2

    parent.kill()
    await parent.communicate()

    await until(lambda: not any(alive(pid) for pid in ranks))
