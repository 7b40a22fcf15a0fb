"""A clone of the repository, a model directory and an environment, made for a test of the settings."""

from __future__ import annotations

from pathlib import Path

from bloomery.settings import ModelSettings, Settings, load
from bloomery.settings.source import Home

ROOT = "engine=DeepSpeed\noption.model_id=models/demo\noption.tensor_parallel_degree=2\noption.dtype=root\n"


class World:
    """A clone, a model directory and an environment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.home = Home(path / "clone")
        (path / "clone" / "code").mkdir(parents=True)
        (path / "clone" / "code" / "model.py").touch()
        self.write("clone/serving.properties", ROOT)
        for file in ("config.json", "model.safetensors"):
            self.write(f"clone/models/demo/{file}", "")
        self.write("mine/model.py", "")

    def write(self, file: str, text: str) -> Path:
        path = self.path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def settings(self, argument: str | None = None, *options: str, **environment: str) -> Settings:
        where = None if argument is None else str(self.path / argument) if (self.path / argument).exists() else argument
        return load(where, options=options, environ={"CUDA_VISIBLE_DEVICES": "", **environment}, home=self.home)

    def model(self, argument: str | None = "mine", *options: str, **environment: str) -> ModelSettings:
        (model,) = self.settings(argument, *options, **environment).models
        return model

    def origin(self, key: str, argument: str | None = "mine", *options: str, **environment: str) -> str:
        rows = self.settings(argument, *options, **environment).explained
        return next(row.origin for row in rows if row.key == key)
