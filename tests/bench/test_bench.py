"""The benchmarks themselves, small: real rank processes, a real server."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bloomery.bench import echo, recovery, servers
from bloomery.bench.__main__ import main
from bloomery.errors import WorkerError


@pytest.fixture(autouse=True)
def _one_thread_and_a_cache_of_our_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.full
def test_engines_are_compared_in_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "results.json"
    arguments = ["--rounds", "2", "--models", "opt", "--layers", "1", "--new", "3", "--prompt", "4", "--batch", "2"]
    only = ["--only", "accelerate,tp2 autotp", "--allreduce", "gloo", "--json", str(output)]
    assert main(["engines", *arguments, *only]) == 0
    baseline, sharded = json.loads(output.read_text())["results"]
    assert (baseline["configuration"], sharded["configuration"]) == ("accelerate", "deepspeed tp2 autotp")
    assert sharded["same_tokens"] == 1.0
    assert sharded["allreduce"] == "gloo (as configured)"
    assert len(sharded["peak_bytes"]) == 2
    assert sharded["peak_bytes"][0] >= sharded["resident_bytes"][0] > sharded["baseline_bytes"][0]
    for result in (baseline, sharded):
        assert len(result["calls"]) == 2
        assert result["p99_ms"] >= result["p50_ms"] > 0
        assert result["tokens_per_second"] == pytest.approx(6000 / result["p50_ms"])
        assert 0 <= result["others"] <= 1
    assert "deepspeed tp2 autotp" in capsys.readouterr().out


def test_a_failing_rank_is_reported_with_its_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--models", "opt", "--layers", "1", "--only", "python engine", "--dtype", "fp7"]
    assert main(["engines", *small]) == 1
    assert "python engine, rank 0: ConfigurationError: dtype='fp7'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "opt,t5"], "--models opt,t5: 't5' is not one of opt, bloom"),
        (["--rounds", "0"], "--rounds 0: at least one is needed"),
        (["--only", "nothing"], "no configuration has such a name; there are accelerate"),
    ],
)
def test_wrong_options_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engines", *arguments]) == 1
    assert message in capsys.readouterr().err


def _children() -> set[str]:
    """Ids of this process's own."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_the_server_and_its_peer_echo_and_are_gone_afterwards() -> None:
    before = _children()
    results, start = echo.run(seconds=0.2, rounds=2, cases=((100, 4), (1_000_000, 1)))
    assert [(result.server, result.body_bytes) for result in results] == [
        (name, size) for size in (100, 1_000_000) for name in (echo.BARE, echo.PLAIN, echo.OURS)
    ]
    for result in results:
        assert result.requests > 0
        assert all(p99 >= p50 > 0 for p50, p99 in zip(result.p50_ms, result.p99_ms, strict=True))
        assert len(result.requests_per_second) == 2
    assert 0 < start.port_open <= start.ready
    assert start.resident_bytes > 2**20
    rows = [line for line in echo.table(results).splitlines() if line.startswith(f"| {echo.BARE} |")]
    assert len(rows) == 2
    assert all("| 1.00 |" in row for row in rows)
    assert not _children() - before  # other tests' servers may live meanwhile


def test_recovery_names_when_each_part_was_over(tmp_path: Path) -> None:
    with servers.bloomery(servers.echo_model(tmp_path), scratch=tmp_path) as server:
        result = recovery.measure(server, "echo handler", b"To be", kills=1)
    assert result.noticed[0] <= result.listening[0] <= result.loaded[0] <= result.answered[0] + 0.1
    assert recovery.table([result]).splitlines()[-1].startswith("| echo handler | 1 | 1 |")


def test_a_server_that_does_not_start_is_reported_with_its_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.py").write_text("raise ValueError('no weights')")
    with pytest.raises(WorkerError, match="no weights"), servers.bloomery(broken, scratch=tmp_path):
        pass
