"""/metrics of a real server, after requests, streams, losses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from tests.support.server import LABORATORY, Server, model_directory, serving

import bloomery

# Two ranks that count tokens as an engine does, and end when they are told to.
COUNTING = """
import os
from bloomery.processes import rank
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        rank.current.report("reading weights")
        return None
    word = inputs.get_as_string()
    if word == "die":
        os._exit(3)
    rank.current.read_prompts(3)
    for _ in range(5):
        rank.current.step(1)
    return Output().add("counted")
"""


def scrape(server: Server) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample's value, by its name and labels."""
    text = server.request("GET", "/metrics").body.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def value(server: Server, name: str, **labels: str) -> float:
    """The sum of the samples of that name with these labels among theirs."""
    wanted = set(labels.items())
    return sum(found for (each, its), found in scrape(server).items() if each == name and wanted <= its)


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def fresh() -> Iterator[Server]:
    """A server that has answered nothing yet."""
    with serving(LABORATORY) as server:
        yield server


def test_what_can_be_scraped_is_prometheus_text(server: Server) -> None:
    reply = server.request("GET", "/metrics")
    assert (reply.status, reply.headers["content-type"].partition(";")[0]) == (200, "text/plain")
    samples = {family.name: family.samples for family in parse(reply.body.decode())}
    assert samples["bloomery_server_info"][0].labels == {"version": bloomery.__version__}
    assert samples["process_resident_memory_bytes"][0].value > 0


def test_a_scraper_that_accepts_openmetrics_gets_it(server: Server) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    reply = server.request("GET", "/metrics", headers=accept)
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    assert list(parse_openmetrics(reply.body.decode()))


def test_djlservings_path_serves_the_same_and_names_choose(server: Server) -> None:
    query = "name[]=bloomery_queue_depth&name[]=bloomery_restarts_total"
    reply = server.request("GET", f"/server/metrics?{query}")
    assert [family.name for family in parse(reply.body.decode())] == ["bloomery_queue_depth", "bloomery_restarts"]


def test_the_state_of_a_model_and_its_groups(server: Server) -> None:
    assert value(server, "bloomery_model_state", model="laboratory", state="ready") == 1
    assert value(server, "bloomery_model_state", model="laboratory") == 1  # and no other state
    assert value(server, "bloomery_group_ready", model="laboratory", group="0") == 1


def test_requests_are_counted_by_the_class_of_their_status(fresh: Server) -> None:
    fresh.post({"do": "answer", "body": "fine"})
    fresh.post({"do": "answer", "body": "fine"})
    fresh.post({"do": "fail", "text": "no"})
    fresh.post({"do": "answer", "code": 507})
    counted = {status: value(fresh, "bloomery_requests_total", status=status) for status in ("2xx", "4xx", "5xx")}
    assert counted == {"2xx": 2, "4xx": 1, "5xx": 1}
    assert value(fresh, "bloomery_request_duration_seconds_count") == 4
    assert value(fresh, "bloomery_request_duration_seconds_bucket", le="+Inf") == 4
    assert value(fresh, "bloomery_request_duration_seconds_sum") > 0


def test_a_refusal_by_the_server_is_not_a_models(fresh: Server) -> None:
    fresh.post({}, "/predictions/nobody")
    assert value(fresh, "bloomery_requests_total") == 0


def test_a_streams_chunks_are_timed(fresh: Server) -> None:
    fresh.post({"do": "stream", "lines": 4})
    assert value(fresh, "bloomery_time_to_first_chunk_seconds_count") == 1
    assert value(fresh, "bloomery_time_per_chunk_seconds_count") == 3


def test_a_broken_stream_and_a_client_that_left_are_no_successes(fresh: Server, tmp_path: Path) -> None:
    with closing(fresh.connect()) as connection, contextlib.suppress(Exception):
        connection.request("POST", "/invocations", '{"do": "stream", "fail": "out of ink"}')
        connection.getresponse().read()
    with closing(fresh.connect()) as connection:
        connection.request("POST", "/invocations", '{"do": "stream", "endless": true}')
        connection.getresponse().readline()
    until(lambda: value(fresh, "bloomery_requests_total", status="gone") == 1, "the client is gone")
    assert value(fresh, "bloomery_requests_total", status="broken") == 1
    assert value(fresh, "bloomery_requests_total", status="2xx") == 0


def test_what_waits_and_what_is_held_can_be_seen(fresh: Server, tmp_path: Path) -> None:
    order = f'{{"do": "wait", "started": "{tmp_path}/started", "release": "{tmp_path}/release"}}'
    with closing(fresh.connect()) as held, closing(fresh.connect()) as waiting:
        held.request("POST", "/invocations", order)
        until((tmp_path / "started").exists, "the request has reached the handler")
        waiting.request("POST", "/invocations", '{"do": "answer", "body": "next"}')
        until(lambda: value(fresh, "bloomery_queue_depth") == 1, "the second request waits")
        assert value(fresh, "bloomery_requests_in_flight") == 1
        (tmp_path / "release").touch()
        assert waiting.getresponse().read() == b"next"
    until(lambda: value(fresh, "bloomery_requests_in_flight") == 0, "nothing is held")
    assert value(fresh, "bloomery_queue_depth") == 0


class TestTwoRanksThatCountTokens:
    @pytest.fixture
    def counting(self, tmp_path: Path) -> Iterator[Server]:
        properties = "engine=MPI\noption.tensor_parallel_degree=2\n"
        with serving(model_directory(tmp_path / "counting", COUNTING, properties)) as server:
            yield server

    def tokens(self, server: Server) -> tuple[float, float]:
        return value(server, "bloomery_prompt_tokens_total"), value(server, "bloomery_generated_tokens_total")

    def test_tokens_are_counted_once_per_group(self, counting: Server) -> None:
        counting.request("POST", "/invocations", "count")
        counting.request("POST", "/invocations", "count")
        until(lambda: self.tokens(counting) == (6, 10), "the ranks have told their tokens")

    def test_counters_survive_a_restart_of_the_group(self, counting: Server) -> None:
        counting.request("POST", "/invocations", "count")
        until(lambda: self.tokens(counting) == (3, 5), "the ranks have told their tokens")
        seen = [self.tokens(counting)]
        assert counting.request("POST", "/invocations", "die").status == 503
        while value(counting, "bloomery_group_ready") == 0 or value(counting, "bloomery_restarts_total") == 0:
            seen.append(self.tokens(counting))
            time.sleep(0.02)
        assert set(seen) == {(3, 5)}  # never fallen
        counting.request("POST", "/invocations", "count")
        until(lambda: self.tokens(counting) == (6, 10), "the new ranks have told their tokens")
        assert value(counting, "bloomery_restarts_total") == 1

    def test_the_phases_of_the_load_are_timed(self, counting: Server) -> None:
        def phases() -> set[str]:
            return {dict(labels)["phase"] for (name, labels) in scrape(counting) if name == "bloomery_load_seconds"}

        until(lambda: {"starting", "importing handler", "reading weights"} <= phases(), "the load's phases are told")
        assert "ready" not in phases()
