"""Streaming beside run:ai's streamer, and three ways to start."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloomery.bench import startup, streaming
from bloomery.bench.streaming import OURS, PAIR, RUNAI, Result, Run

SIZE = 64 << 20


def result(client: str, seconds: list[float]) -> Result:
    return Result(client, SIZE, 2, [Run(each, 1.0, SIZE + (1 << 20), SIZE, SIZE, 0.1) for each in seconds])


def test_ratios_are_those_of_runs_in_the_same_round() -> None:
    assert streaming.verdicts([result(OURS, [1.0, 2.0, 1.0]), result(RUNAI, [2.0, 8.0, 3.0])]) == [
        "64 MiB: 3.00 x run:ai's streamer"
    ]


def test_without_its_peer_there_is_nothing_to_compare_with() -> None:
    assert "not installed" in streaming.verdicts([result(OURS, [1.0])])[0]


def test_the_table_shows_memory_beside_the_share_and_what_was_read() -> None:
    row = streaming.table([result(PAIR, [2.0, 1.0, 3.0])]).splitlines()[-1]
    assert row == (
        "| 64 MiB in 2 | bloomery, two ranks | 2.00 | 100% | 32 | 1.00 | 65 MiB / 64 MiB = 1.02 | 1.0000 | 10% |"
    )


def test_starts_are_shown_with_their_phases() -> None:
    phases = [{"libraries": 1.0, "transfer": 2.0, "fill": 3.0, "engine": 4.0}]
    row = startup.table([startup.Result(startup.STREAM, 10**9, [11.0], phases)]).splitlines()[-1]
    assert row == "| stream | 11.0 | 0% | 1.0 | 2.0 | 3.0 | 4.0 |"


@pytest.mark.full
def test_one_rank_and_two_read_each_byte_once(tmp_path: Path) -> None:
    results = {each.client: each for each in streaming.run(1, [(SIZE, 2)], tmp_path)}

    assert results[OURS].runs[0].share_bytes == SIZE
    assert results[PAIR].runs[0].share_bytes == SIZE // 2
    for client in (OURS, PAIR):
        assert SIZE <= results[client].runs[0].read_bytes < SIZE * 1.001
