"""Mistakes of newcomers on the real emulator: each answer names the mistake and the fix, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sagemaker.mistaken import BEFORE, Mistake, World, make, world
from tests.sagemaker.mistakes import MISTAKES


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("account")) as account:
        yield account


def _case(mistake: Mistake) -> Any:
    return pytest.param(mistake, id=mistake.title, marks=[pytest.mark.full] if mistake.alike else [])


@pytest.mark.parametrize("mistake", map(_case, MISTAKES))
def test_it_is_named_with_its_remedy_and_leaves_nothing(mistake: Mistake, here: World, tmp_path: Path) -> None:
    answer = make(mistake, here, tmp_path)
    assert answer.code == mistake.code, answer.text
    for words in mistake.says:
        assert words in answer.text
    assert mistake.caught != BEFORE or "Traceback" not in answer.text
    assert not answer.left


def test_there_are_twenty_and_most_are_caught_before_anything_is_created() -> None:
    assert len(MISTAKES) >= 20
    assert len([each for each in MISTAKES if each.caught == BEFORE]) >= 18
