"""Generated cases: few and always the same ones in every run, many and new ones with ``-m full``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

Case = TypeVar("Case")


def numbers(few: int, many: int) -> pytest.MarkDecorator:
    """How many cases a test's argument ``count`` asks for: ``few``, and in a full run also ``many``."""
    return pytest.mark.parametrize(
        "count", [few, pytest.param(many, marks=[pytest.mark.full, pytest.mark.timeout(3600)])]
    )


def for_all(cases: SearchStrategy[Case], check: Callable[[Case], None], count: int) -> None:
    """Call ``check`` with ``count`` cases; the first that fails is shown."""

    # The cases run against live servers: how long one takes is the server's affair, and there is no state to keep.
    @settings(
        max_examples=count,
        derandomize=count < 1000,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # against a live server, making a case smaller takes longer than reading it
    )
    @given(cases)
    def run(case: Case) -> None:
        check(case)

    run()
