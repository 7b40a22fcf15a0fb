from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.settings_world import World


@pytest.fixture(autouse=True)
def _deepspeed_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is must not decide these tests; those about its absence say so."""
    monkeypatch.setattr("bloomery.settings.engine.deepspeed_importable", lambda: True)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
