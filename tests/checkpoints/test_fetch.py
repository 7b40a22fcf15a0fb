from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bloomery import checkpoints
from bloomery.errors import CheckpointError, ConfigurationError

CONTAINER = Path(__file__).parents[2] / "container"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "a model"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    return directory


def test_a_directory_is_returned_as_it_is(model: Path) -> None:
    assert checkpoints.fetch(str(model)) == model


def test_a_file_url_is_a_directory(model: Path) -> None:
    assert checkpoints.fetch(model.as_uri()) == model


def test_a_relative_directory_is_not_taken_for_a_hub_id(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model / "org" / "name").mkdir(parents=True)
    (model / "org" / "name" / "config.json").write_text("{}")
    monkeypatch.chdir(model)
    assert checkpoints.fetch("org/name") == Path("org/name")


def test_what_the_security_controls_forbid_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model / "pytorch_model.bin").touch()
    assert checkpoints.fetch(model) == model
    monkeypatch.setenv("SAGEMAKER_SECURITY_CONTROLS", "DISALLOW_PICKLE_FILES")
    with pytest.raises(ConfigurationError, match=r"pytorch_model\.bin, a pickle by its name is forbidden"):
        checkpoints.fetch(model)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"/nowhere does not exist: name the directory that holds config\.json"):
        checkpoints.fetch(tmp_path / "nowhere")


def test_a_file_is_no_model_directory(model: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file"):
        checkpoints.fetch(model / "config.json")


def test_a_directory_without_a_model_is_refused_with_what_it_holds(model: Path) -> None:
    with pytest.raises(CheckpointError, match="which holds a model"):
        checkpoints.fetch(model.parent)


@pytest.mark.parametrize("uri", ["https://example.com/model", "gs://bucket/model", "s3://"])
def test_a_scheme_that_nobody_fetches_is_refused(uri: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be fetched: give s3://bucket/prefix"):
        checkpoints.fetch(uri)


def test_fetching_needs_no_torch() -> None:
    script = "import sys; from bloomery import checkpoints; print([m for m in ('torch', 'boto3') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(CONTAINER)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
