from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.server import LABORATORY, REPOSITORY, Server, serving


@pytest.fixture(scope="session")
def laboratory() -> Iterator[Server]:
    """One server with the handler that does what it is told, for all tests here; they leave it idle and unharmed."""
    # Management has an address of its own, or requests that are tried here might remove the model.
    with serving(LABORATORY, env={"SERVING_MANAGEMENT_ADDRESS": "http://127.0.0.1:0"}) as running:
        yield running


@pytest.fixture(scope="session")
def demonstration() -> Iterator[Server]:
    """One server with the demonstration model in a single process without DeepSpeed."""
    model = REPOSITORY / "models" / "shakespeare-bloom"
    entry = ("-o", "engine=Python", "-o", "option.entryPoint=djl_python.huggingface")
    with serving(model, *entry, "-o", "option.tensor_parallel_degree=1") as running:
        yield running
