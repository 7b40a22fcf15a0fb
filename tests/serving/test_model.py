"""A model with real rank processes, seen from the server."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace

import pytest
from tests.support.worker_models import FAST, alive, ask, body, notes, until

from bloomery.errors import BadRequestError, CapacityError, ModelLoadError, ServiceUnavailableError, StreamError
from bloomery.protocol.frames import Request
from bloomery.serving.model import Model

MIB = 2**20


def pids(model: Model) -> list[int]:
    return [pid for group in model.status().groups for pid in group.pids]


async def echo(model: Model, text: str = "hello") -> str:
    async with model.submit(ask("echo", text=text)) as answer:
        assert answer.code == 200
        return str(body(answer)["text"])


@pytest.mark.parametrize("ranks", [1, 2])
async def test_an_answer_comes_from_rank_0(start_model, ranks):
    model = await start_model(ranks)

    async with model.submit(ask("echo", text="hello")) as answer:
        assert (answer.code, answer.message, answer.stream) == (200, "OK", None)
        assert body(answer) == {"rank": 0, "pid": pids(model)[0], "text": "hello"}


@pytest.mark.parametrize("ranks", [1, 2])
async def test_a_stream_comes_piece_by_piece(start_model, ranks):
    model = await start_model(ranks)

    async with model.submit(ask("stream", count=3)) as answer:
        assert answer.code == 200
        assert [piece async for piece in answer.stream] == [b"t-0;", b"t-1;", b"t-2;"]


async def test_every_rank_gets_every_request_and_is_drained(start_model):
    model = await start_model(2)

    for number in range(3):
        async with model.submit(ask("stream", count=number + 1)) as answer:
            assert len([piece async for piece in answer.stream]) == number + 1
    assert await echo(model, "still in step") == "still in step"

    for rank in (0, 1):
        assert [each["do"] for each in notes(model.settings.model_dir, "requests", rank)] == ["stream"] * 3 + ["echo"]


async def test_ranks_draw_the_same_random_numbers_and_requests_different_ones(start_model):
    model = await start_model(2)

    for _ in range(2):
        async with model.submit(ask("random")):
            pass

    drawn = notes(model.settings.model_dir, "random", 0)
    assert drawn == notes(model.settings.model_dir, "random", 1)
    assert len(set(drawn)) == 2


async def test_a_failure_of_rank_1_alone_fails_the_request_and_names_the_rank(start_model):
    model = await start_model(2)

    async with model.submit(ask("raise", rank=1)) as answer:
        assert answer.code == 424
        assert body(answer) == {"code": 424, "message": "prediction failure", "error": "rank 1: wrong number"}
    assert await echo(model) == "hello"


async def test_a_failure_of_all_ranks_is_rank_0s_own_answer(start_model):
    model = await start_model(2)

    async with model.submit(ask("code", code=418)) as answer:
        assert (answer.code, answer.message, answer.content) == (418, "as asked", [(None, b"told so")])


@pytest.mark.parametrize("rank", [0, 1])
async def test_a_stream_that_breaks_on_one_rank_ends_with_its_words(start_model, rank):
    model = await start_model(2)

    async with model.submit(ask("stream", count=3, fail_at=1, rank=rank)) as answer:
        with pytest.raises(StreamError, match="broke at 1") as caught:
            [piece async for piece in answer.stream]

    assert caught.value.status == 424
    assert ("rank 1" in str(caught.value)) == (rank == 1)
    assert await echo(model) == "hello"


async def test_a_request_that_fits_no_frame_is_the_clients_fault(start_model):
    model = await start_model()
    too_many = Request({}, [("data", b"")] * 2**15)

    with pytest.raises(BadRequestError, match="32768 content parts in one frame"):
        async with model.submit(too_many):
            pass
    assert await echo(model) == "hello"


async def test_requests_queue_while_the_group_is_busy(start_model):
    model = await start_model()
    gate = model.settings.model_dir / "gate"

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hold(model, "gate"))
        await until(lambda: model.status().groups[0].busy)
        others = [tasks.create_task(echo(model, str(number))) for number in range(5)]
        await until(lambda: model.status().queued == 5)
        gate.touch()

    assert first.result() == 200
    assert [task.result() for task in others] == list("01234")
    assert [each.get("text") for each in notes(model.settings.model_dir, "requests")] == [None, *"01234"]


async def hold(model: Model, file: str) -> int:
    async with model.submit(ask("wait", file=file)) as answer:
        return answer.code


async def test_a_full_queue_refuses_in_djlservings_words(start_model):
    model = await start_model(job_queue_size=2)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold(model, "gate"))
        await until(lambda: model.status().groups[0].busy)
        for _ in range(2):
            tasks.create_task(echo(model))
        await until(lambda: model.status().queued == 2)
        with pytest.raises(
            CapacityError, match=r"^Worker queue capacity exceeded for model: m \(job_queue_size=2, 2 requests wait\)$"
        ):
            await echo(model)
        (model.settings.model_dir / "gate").touch()


async def test_a_request_that_leaves_the_queue_never_reaches_a_rank(start_model):
    model = await start_model()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold(model, "gate"))
        await until(lambda: model.status().groups[0].busy)
        waiting = tasks.create_task(echo(model, "gone"))
        await until(lambda: model.status().queued == 1)
        waiting.cancel()
        await until(lambda: model.status().queued == 0)
        (model.settings.model_dir / "gate").touch()

    assert await echo(model, "next") == "next"
    assert [each.get("text") for each in notes(model.settings.model_dir, "requests")] == [None, "next"]


async def test_groups_share_the_work(start_model):
    model = await start_model(min_workers=2)
    await until(lambda: all(group.state == "ready" for group in model.status().groups))

    async with asyncio.TaskGroup() as tasks:
        held = [tasks.create_task(hold(model, "gate")) for _ in range(2)]
        await until(lambda: all(group.busy for group in model.status().groups))
        (model.settings.model_dir / "gate").touch()

    assert [task.result() for task in held] == [200, 200]


async def test_two_models_serve_side_by_side(start_model):
    one, two = await start_model(2, name="one"), await start_model(2, name="two")

    assert await asyncio.gather(echo(one, "1"), echo(two, "2")) == ["1", "2"]
    os.kill(pids(one)[1], signal.SIGKILL)
    assert await echo(two, "undisturbed") == "undisturbed"


async def test_a_client_that_leaves_a_stream_stops_it_in_every_rank_and_frees_the_group(start_model):
    model = await start_model(2)

    async with model.submit(ask("stream", count=1000, pause=0.02, heed=True)) as answer:
        assert await anext(answer.stream) == b"t-0;"

    assert await echo(model, "next") == "next"
    for rank in (0, 1):
        (stopped_at,) = notes(model.settings.model_dir, "cancelled", rank)
        assert stopped_at < 100


async def test_a_client_that_leaves_before_the_answer_stops_the_work(start_model):
    model = await start_model(2)

    async with asyncio.TaskGroup() as tasks:
        client = tasks.create_task(submit_and_ignore(model))
        await until(lambda: len(notes(model.settings.model_dir, "requests", 1)) == 1)
        client.cancel()

    started = time.monotonic()
    assert await echo(model, "next") == "next"
    assert time.monotonic() - started < 10


async def submit_and_ignore(model: Model) -> None:
    async with model.submit(ask("work", seconds=600)):
        pass


async def test_a_handler_that_knows_no_cancel_finishes_before_the_next_request(start_model):
    model = await start_model(2)

    async with model.submit(ask("stream", count=20, pause=0.02)) as answer:
        await anext(answer.stream)

    assert await echo(model, "next") == "next"
    assert notes(model.settings.model_dir, "pieces", 1) == list(range(20))


async def test_on_disconnect_restart_ends_a_handler_that_knows_no_cancel(start_model):
    model = await start_model(2, on_disconnect="restart")
    before = pids(model)

    async with model.submit(ask("stream", count=2, pause=600)) as answer:
        await anext(answer.stream)

    assert await echo(model, "next") == "next"
    assert not set(before) & set(pids(model))


async def test_a_reader_that_is_too_slow_loses_its_own_stream_only(start_model):
    model = await start_model(limits=replace(FAST, stream_buffer=MIB))

    async with model.submit(ask("stream", count=8, size=MIB)) as answer:
        # Nobody reads; the group must become free all the same.
        assert await echo(model, "not held up") == "not held up"
        with pytest.raises(StreamError, match="reads too slowly") as caught:
            [piece async for piece in answer.stream]

    assert caught.value.status == 503


async def test_a_reader_that_is_only_a_little_slower_than_the_ranks_gets_everything(start_model):
    model = await start_model(limits=replace(FAST, stream_buffer=MIB, reader_grace=10))

    async with model.submit(ask("stream", count=8, size=MIB)) as answer:
        size = 0
        async for piece in answer.stream:
            await asyncio.sleep(0.02)
            size += len(piece)

    assert size == 8 * MIB


async def test_while_it_loads_the_status_says_how_far_the_slowest_rank_is(start_model):
    model = await start_model(2, properties={"on_load": "slow:1"}, wait=False)

    def status_of_rank_1() -> tuple[str, str, float]:
        status = model.status()
        return status.state, status.phase, status.percent

    await until(lambda: status_of_rank_1() == ("loading", "reading weights", 25.0))
    with pytest.raises(ServiceUnavailableError, match=r"model 'm' is loading: reading weights 25 %"):
        await echo(model)
    (model.settings.model_dir / "go").touch()
    await model.loaded()
    assert model.status().state == "ready"


@pytest.mark.parametrize(
    ("on_load", "cause"),
    [
        ("raise:1", r"model 'm' failed: ValueError: the weights are of the wrong shape"),
        ("exit:1", r"rank 1 \(pid \d+\) exited with code 7"),
        ("kill:1", r"rank 1 \(pid \d+\) was killed by signal 9 \(SIGKILL\)"),
    ],
)
async def test_a_rank_that_cannot_load_fails_the_model_with_a_report(start_model, on_load, cause):
    model = await start_model(2, properties={"on_load": on_load, "dtype": "fp32"}, wait=False)

    with pytest.raises(ModelLoadError, match=cause) as caught:
        await model.loaded()

    for part in ["model 'm' could not be loaded", "engine: MPI, tensor_parallel_degree=2", "dtype=fp32", "rank 1 of 2"]:
        assert part in caught.value.report
    assert model.status().state == "failed"
    with pytest.raises(ServiceUnavailableError, match=cause):
        await echo(model)


async def test_the_report_ends_with_what_the_rank_printed(start_model):
    model = await start_model(2, properties={"on_load": "exit:1"}, wait=False)

    with pytest.raises(ModelLoadError) as caught:
        await model.loaded()

    assert caught.value.report.splitlines()[-2] == "no such device"


async def test_a_load_that_takes_too_long_is_reported_with_the_stacks_of_all_ranks(start_model):
    model = await start_model(2, properties={"on_load": "hang"}, model_loading_timeout=2, wait=False)

    with pytest.raises(ModelLoadError, match="longer than model_loading_timeout=2 s") as caught:
        await model.loaded()

    for rank in (0, 1):
        assert f"rank {rank} was here" in caught.value.report
    assert caught.value.report.count("time.sleep(600)") == 2


async def test_a_failed_model_calls_back_once_and_leaves_no_process(start_model):
    model = await start_model(2, properties={"on_load": "raise:0"}, min_workers=2, wait=False)
    failures = []
    model.on_failure = lambda *failure: failures.append(failure)

    with pytest.raises(ModelLoadError):
        await model.loaded()
    await model.stop(grace=0)

    assert failures == [(model, model.error)]
    started = [pid for rank in (0, 1) for pid in notes(model.settings.model_dir, "loads", rank)]
    assert started
    assert not any(alive(pid) for pid in started)


async def test_stop_lets_running_and_queued_requests_finish(start_model):
    model = await start_model()

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(hold(model, "gate"))
        await until(lambda: model.status().groups[0].busy)
        queued = tasks.create_task(echo(model, "queued"))
        await until(lambda: model.status().queued == 1)
        stopping = tasks.create_task(model.stop(grace=30))
        await asyncio.sleep(0)
        with pytest.raises(ServiceUnavailableError, match="shutting down"):
            await echo(model)
        (model.settings.model_dir / "gate").touch()

    assert (running.result(), queued.result()) == (200, "queued")
    assert stopping.done()


async def test_stop_ends_what_does_not_finish_within_the_grace(start_model):
    model = await start_model(2)
    ranks = pids(model)

    async with asyncio.TaskGroup() as tasks:
        stuck = tasks.create_task(outcome(model, ask("sleep", seconds=600)))
        await until(lambda: model.status().groups[0].busy)
        await model.stop(grace=0.2)

    assert "shutting down" in str(stuck.result())
    assert not any(alive(pid) for pid in ranks)


async def outcome(model: Model, request) -> Exception | int:
    try:
        async with model.submit(request) as answer:
            return answer.code
    except ServiceUnavailableError as error:
        return error


async def test_stop_during_a_load_ends_it(start_model):
    model = await start_model(2, properties={"on_load": "hang"}, wait=False)
    ranks = await until(lambda: pids(model))

    await model.stop(grace=5)

    assert not any(alive(pid) for pid in ranks)
    with pytest.raises(ModelLoadError, match="stopped before it was loaded"):
        await model.loaded()


@pytest.mark.parametrize("turns", range(16))
async def test_a_model_that_is_stopped_at_any_moment_of_its_start_stops(start_model, turns):
    model = await start_model(wait=False)
    for _ in range(turns):  # of the event loop
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await model.stop(grace=0)
