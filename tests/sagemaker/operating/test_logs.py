"""The containers' lines: in order, once each, however late they come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.sagemaker.operating.conftest import component, endpoint
from tests.support.emulator import until

from bloomery.sagemaker.operating.description import components
from bloomery.sagemaker.operating.logs import Logs, group_of_endpoint, start_of_tail
from bloomery.sagemaker.operating.removal import remove
from bloomery.sagemaker.operating.status import last_lines, log_groups
from bloomery.sagemaker.session import Session

LONG_AGO = datetime.fromtimestamp(0, UTC)
NOON = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)  # CloudWatch takes no line that is very old


@pytest.fixture
def group(session: Session, name: str) -> Iterator[str]:
    """A log group with the streams V/a and V/b."""
    logs, group = session.client("logs"), group_of_endpoint(name)
    logs.create_log_group(logGroupName=group)
    for stream in ("V/a", "V/b"):
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
    yield group
    logs.delete_log_group(logGroupName=group)


def put(session: Session, group: str, stream: str, *lines: tuple[float, str]) -> None:
    """Lines, each with its seconds after noon."""
    events = [
        {"timestamp": int((NOON.timestamp() + seconds) * 1000), "message": text} for seconds, text in sorted(lines)
    ]
    session.client("logs").put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def texts(reader: Logs) -> list[str]:
    return [line.text for line in reader.new()]


def test_streams_are_merged_by_time(session: Session, group: str) -> None:
    put(session, group, "V/a", (0, "one"), (2, "three\n"))
    put(session, group, "V/b", (1, "two"), (3, "four"))
    found = list(Logs(session, [("", group)], LONG_AGO).new())
    assert [(line.stream, line.text) for line in found] == [
        ("V/a", "one"),
        ("V/b", "two"),
        ("V/a", "three"),
        ("V/b", "four"),
    ]
    assert [(line.at - NOON).total_seconds() for line in found] == [0, 1, 2, 3]


def test_each_line_comes_once_and_a_late_one_too(session: Session, group: str) -> None:
    reader = Logs(session, [("", group)], NOON)
    assert texts(reader) == []
    put(session, group, "V/a", (0, "one"), (100, "two"))
    assert texts(reader) == ["one", "two"]
    put(session, group, "V/b", (80, "late"), (101, "two"))
    assert texts(reader) == ["late", "two"]
    assert texts(reader) == []


def test_nothing_from_before(session: Session, group: str) -> None:
    put(session, group, "V/a", (0, "one"), (10, "two"))
    assert texts(Logs(session, [("", group)], NOON + timedelta(seconds=5))) == ["two"]


def test_the_end_of_a_long_log_is_found_without_reading_all(session: Session, group: str) -> None:
    put(session, group, "V/a", *((each, f"a{each}") for each in range(0, 40, 2)))
    put(session, group, "V/b", *((each, f"b{each}") for each in range(1, 41, 2)))
    start = start_of_tail(session, [group], 3)
    assert start == NOON + timedelta(seconds=37)
    assert texts(Logs(session, [("", group)], start)) == ["b37", "a38", "b39"]
    assert start_of_tail(session, [group], 1000) == NOON


def test_a_log_that_is_not_there_is_empty(session: Session) -> None:
    assert start_of_tail(session, ["absent"], 3) == LONG_AGO
    assert texts(Logs(session, [("", "absent")], LONG_AGO)) == []


def test_an_endpoint_and_its_components_have_one_log(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name, components=True)
    component(sagemaker, name, f"{name}-c")
    body = json.dumps({"do": {"sleep": 0}})
    session.runtime.invoke_endpoint(EndpointName=name, InferenceComponentName=f"{name}-c", Body=body)
    owned = tuple(components(session, name))
    assert [prefix for prefix, _ in log_groups(name, owned)] == ["", f"{name}-c"]
    until(lambda: any("asked to" in line.text for line in last_lines(session, name, owned, 5)), "its line")
    (line,) = last_lines(session, name, owned, 1)
    assert line.stream.startswith(f"{name}-c:V/i-")
    remove(session, name)
