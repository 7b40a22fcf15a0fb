from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.server import LABORATORY, Server, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server with the laboratory handler for the tests of a module; they leave it idle."""
    with serving(LABORATORY) as running:
        yield running
