"""Python code that comes with a checkpoint: it runs only when option.trust_remote_code says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bloomery.errors import UnsupportedModelError


@contextlib.contextmanager
def refused_in_words(path: Path) -> Iterator[None]:
    """transformers' own refusal speaks of an argument that nobody passes here, and of a page on its hub."""
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        files = ", ".join(sorted(file.name for file in path.glob("*.py"))) or "on its hub"
        raise UnsupportedModelError(
            f"{path} can only be loaded by Python code of its own ({files}), which does not run unasked: read it, and "
            "set option.trust_remote_code=true if you trust it, or take a checkpoint without"
        ) from None
