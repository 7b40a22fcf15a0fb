from __future__ import annotations

import io
import logging
import re

import pytest
from tests.support.worker_models import until

from bloomery.cli.access_log import AccessHandler


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(stream: io.StringIO) -> logging.Logger:
    logger = logging.Logger("bloomery.access")
    logger.addHandler(AccessHandler(stream))
    return logger


async def until_written(stream: io.StringIO) -> str:
    return str(await until(stream.getvalue))


async def test_lines_are_written_together_each_with_its_own_time(logger, stream):
    logger.info("first %d", 1)
    logger.warning("second")

    first, second = (await until_written(stream)).splitlines()

    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO    bloomery\.access: first 1", first)
    assert second.endswith("WARNING bloomery.access: second")


async def test_a_later_line_is_written_too(logger, stream):
    logger.info("one")
    await until_written(stream)
    logger.info("two")

    await until(lambda: "two" in stream.getvalue())


async def test_what_is_left_is_written_at_the_end(logger, stream):
    logger.info("the last one")
    logger.handlers[0].flush()

    assert "the last one" in stream.getvalue()


async def test_a_urls_password_is_hidden(logger, stream):
    logger.info("GET http://user:hunter2@host/x")

    assert "hunter2" not in await until_written(stream)
