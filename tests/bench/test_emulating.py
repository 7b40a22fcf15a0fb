"""The emulator's benchmark, small: the real emulator, a real container."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bloomery.bench.__main__ import main


def test_the_emulator_is_compared_with_its_container(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "results.json"
    assert main(["emulator", "--seconds", "0.3", "--rounds", "1", "--json", str(output)]) == 0
    results = json.loads(output.read_text())["results"]
    assert [result["what"] for result in results] == [
        "invocation, 1 at a time",
        "invocation, 8 at a time",
        "first piece of a stream",
    ]
    for result in results:
        assert result["direct_ms"][0] > 0
        assert result["through_p99_ms"][0] >= result["through_ms"][0] > 0
        assert result["added_ms"] == [result["through_ms"][0] - result["direct_ms"][0]]
    assert "start: ready after" in capsys.readouterr().out
