"""The models' data on disk, by content: fetched once, kept over restarts, shared read-only by all instances."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from bloomery.errors import DeploymentFailure
from bloomery.processes.child import Child
from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.containers import environment, model_data
from bloomery.sagemaker.emulator.deployment import ModelData, Surroundings

_PARTIAL = ".partial-"


class Artefacts:
    """Owns ``state``/artefacts."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._store = around.state / "artefacts"
        self._locks: defaultdict[ModelData, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._prepared = False

    async def fetch(self, data: ModelData, region: str, seconds: float, phase: Callable[[str], None]) -> Path:
        """The directory with ``data``. Raises DeploymentFailure, after ``seconds`` at the latest."""
        self._prepare()
        uri = data.archive or data.prefix
        if uri is None:
            (empty := self._store / "empty").mkdir(exist_ok=True)
            return empty
        phase("downloading the model data")
        try:
            async with asyncio.timeout(seconds), self._locks[data]:
                return await self._run(data, region, phase)
        except TimeoutError:
            raise DeploymentFailure(words.DOWNLOAD_TIME.format(uri=uri, seconds=seconds)) from None

    async def _run(self, data: ModelData, region: str, phase: Callable[[str], None]) -> Path:
        said: dict[str, str] = {}

        def heard(line: str) -> None:
            try:
                message = json.loads(line)
            except ValueError:
                return
            if isinstance(message, dict):
                said.update(message)
                if "phase" in message:
                    phase(message["phase"])

        partial = tempfile.mkdtemp(prefix=_PARTIAL, dir=self._store)
        arguments = [json.dumps(asdict(data)), str(self._store), partial]
        command = [sys.executable, "-m", model_data.__name__, *arguments]
        child = Child.start(command, self._environment(region), None, heard)
        try:
            await asyncio.shield(child.exited)
        finally:
            await child.end(0)
            await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
        if "directory" in said:
            return Path(said["directory"])
        uri = data.archive or data.prefix or ""
        last = "; ".join(child.last_lines(1))
        raise DeploymentFailure(said.get("failure") or words.NO_DOWNLOAD.format(uri=uri, detail=f" ({last})"))

    def _environment(self, region: str) -> dict[str, str]:
        package = str(Path(__file__).parents[4])
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": package,
            **environment.aws(self._around, region),
        }

    def _prepare(self) -> None:
        if not self._prepared:
            self._prepared = True
            self._store.mkdir(parents=True, exist_ok=True)
            for partial in self._store.glob(_PARTIAL + "*"):  # an emulator that was killed left it
                shutil.rmtree(partial, ignore_errors=True)
