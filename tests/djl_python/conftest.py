from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.worker_client import ServeHandler, WorkerProcess, start_worker, write_model


@pytest.fixture
def serve_handler(tmp_path: Path) -> Iterator[ServeHandler]:
    """Start a worker for the source of a model.py; every worker ends with the test."""
    started: list[WorkerProcess] = []

    def start(source: str, *arguments: str, **options: object) -> WorkerProcess:
        directory = tmp_path / str(len(started))
        write_model(directory / "model", source)
        worker = start_worker(directory / "model", directory, *arguments, **options)  # type: ignore[arg-type]
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.stop()
