"""The comparison of clients, small: a real server, real clients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bloomery.bench import fetching_report
from bloomery.bench.__main__ import main
from bloomery.bench.fetching import Result, Run
from bloomery.bench.fetching_clients import MANAGER, MANAGER_TUNED, S5CMD, UNVERIFIED, VERIFIED


def test_clients_fetch_the_same_in_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "results.json"
    small = ["--size", "0", "--sharded", "0.01", "--rounds", "1", "--directory", str(tmp_path), "--json", str(output)]
    assert main(["fetch", *small]) == 0
    results = json.loads(output.read_text())["results"]
    assert {VERIFIED, UNVERIFIED, MANAGER, MANAGER_TUNED} <= {result["client"] for result in results}
    for result in results:
        (run,) = result["runs"]
        assert run["wall_seconds"] > 0
        assert 0 <= run["others"] <= 1
    printed = capsys.readouterr().out
    assert "10 MiB in 32 files: " in printed
    assert "verification costs" in printed
    assert list(tmp_path.iterdir()) == [output]


def test_too_little_room_is_said_before_anything_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "--size", "1000000"]) == 1
    assert "the benchmark needs 2048000000 MiB there" in capsys.readouterr().err


def test_ours_is_compared_with_the_faster_form_of_each_peer_round_by_round() -> None:
    def result(client: str, *seconds: float) -> Result:
        return Result("1 GiB", client, 2**30, [Run(wall, wall, 0, 0.0) for wall in seconds])

    results = [
        result(VERIFIED, 1.0, 2.0, 4.0),
        result(UNVERIFIED, 1.0, 1.6, 4.0),
        result(MANAGER, 9.0, 9.0, 9.0),
        result(MANAGER_TUNED, 2.0, 6.0, 8.0),
        result(S5CMD, 0.9, 1.8, 3.6),
    ]
    (line,) = fetching_report.verdicts(results)
    assert line == (
        "1 GiB: 2.00 x TransferManager (boto3 TransferManager 16 x 16 MiB), 0.90 x s5cmd (s5cmd), "
        "verification costs +0.0% (+25.0% processor time)"
    )
