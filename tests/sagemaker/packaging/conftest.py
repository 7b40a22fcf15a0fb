"""A model directory to be packaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MODEL = "def handle(inputs):\n    return None\n"
Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """``write({"model.py": text or bytes, …})``: a directory called code with these files."""

    def writing(files: dict[str, str | bytes], name: str = "code") -> Path:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        for file, content in files.items():
            path = directory / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return directory

    return writing
