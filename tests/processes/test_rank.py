from __future__ import annotations

import pytest

from bloomery.processes.rank import Rank


def test_outside_a_group_a_process_is_rank_0_of_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert (Rank().index, Rank().world_size) == (0, 1)


def test_the_environment_says_which_rank_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (Rank().index, Rank().world_size) == (2, 4)


def test_a_report_is_what_ping_answers() -> None:
    rank = Rank()
    rank.report("loading weights", 40.0)
    assert (rank.status().phase, rank.status().percent) == ("loading weights", 40.0)


def test_every_sign_of_progress_moves_the_step_counter() -> None:
    rank = Rank()
    seen = [rank.status().steps]
    for sign in (lambda: rank.report("x"), lambda: rank.begin("a"), lambda: rank.step(2), rank.end):
        sign()
        seen.append(rank.status().steps)
    assert seen == sorted(set(seen))


def test_tokens_add_up() -> None:
    rank = Rank()
    rank.step(2)
    rank.step(3)
    assert rank.status().tokens == 5


def test_tokens_of_prompts_add_up() -> None:
    rank = Rank()
    rank.read_prompts(2)
    rank.read_prompts(3)
    assert (rank.status().prompt_tokens, rank.status().tokens) == (5, 0)


def test_a_phase_is_told_with_its_seconds_once_it_is_over() -> None:
    rank = Rank()
    rank.report("fetching")
    rank.report("fetching", 50.0)
    assert list(rank.status().phases) == ["starting"]
    rank.report("loading weights")
    rank.report("ready", 100.0)
    phases = rank.status().phases
    assert list(phases) == ["starting", "fetching", "loading weights"]
    assert all(0 <= seconds < 60 for seconds in phases.values())


def test_being_ready_is_no_phase_of_the_load() -> None:
    rank = Rank()
    for phase in ("ready", "adapting", "ready"):
        rank.report(phase)
    assert list(rank.status().phases) == ["starting", "adapting"]


def test_a_handler_that_names_endless_phases_is_not_followed() -> None:
    rank = Rank()
    for number in range(100):
        rank.report(f"step {number}")
    assert len(rank.status().phases) == 32


def test_cancelling_the_running_request_is_seen() -> None:
    rank = Rank()
    rank.begin("a")
    rank.cancel("a")
    assert rank.cancelled


@pytest.mark.parametrize("other", ["b", ""])
def test_cancelling_another_request_changes_nothing(other: str) -> None:
    rank = Rank()
    rank.begin("a")
    rank.cancel(other)
    assert not rank.cancelled


def test_a_request_without_identity_cannot_be_cancelled() -> None:
    rank = Rank()
    rank.begin("")
    rank.cancel("")
    assert not rank.cancelled


def test_a_cancellation_ends_with_its_request() -> None:
    rank = Rank()
    rank.begin("a")
    rank.cancel("a")
    rank.end()
    assert not rank.cancelled
    rank.begin("b")
    assert not rank.cancelled


def test_a_cancel_listener_hears_every_cancellation() -> None:
    rank = Rank()
    heard: list[str] = []
    rank.on_cancel = heard.append
    rank.cancel("a")
    assert heard == ["a"]
