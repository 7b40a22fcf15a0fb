"""Mistakes of newcomers on the real emulator: each answer names the mistake and the fix, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sagemaker.mistakes import MISTAKES, Mistake, World, make, world


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("account")) as account:
        yield account


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.title.replace(" ", "-"))
def test_it_is_named_with_its_remedy_and_leaves_nothing(mistake: Mistake, here: World, tmp_path: Path) -> None:
    before = here.there()
    answer = make(mistake, here, tmp_path)
    assert answer.code == mistake.code, answer.text
    for words in mistake.says:
        assert words in answer.text
    assert "Traceback" not in answer.text
    assert here.there() == before
