from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.tiny_models import tiny_tokenizer

from djl_python import Input


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture
def request_of() -> Callable[..., Input]:
    """An Input as the worker makes it from an HTTP request."""

    def make(body: bytes, content_type: str = "application/json", **properties: str) -> Input:
        inputs = Input()
        inputs.properties = {"Content-Type": content_type, **properties}
        inputs.content.add("data", bytearray(body))
        return inputs

    return make
