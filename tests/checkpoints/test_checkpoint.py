"""What an engine is given to load: a directory, or small files here and weights that are still at their source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support.faulty_s3 import FaultyS3
from tests.support.faulty_s3.environment import FOREIGN, client_environment

from bloomery.checkpoints import Checkpoint, locate
from bloomery.errors import CheckpointError, ConfigurationError

URI = "s3://models/m"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The directory of s3://models/m, with a configuration and a tokenizer."""
    directory = tmp_path / "s3" / "models" / "m"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    (directory / "tokenizer[1].json").write_text("{}")  # a name that a pattern would read otherwise
    return directory


@pytest.fixture
def s3(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    with FaultyS3(tmp_path / "s3") as server:
        for name in FOREIGN:
            monkeypatch.delenv(name, raising=False)
        for name, value in client_environment(server.url).items():
            monkeypatch.setenv(name, value)
        yield server


def weights(file: Path) -> None:
    save_file({file.stem: np.zeros((4, 4), np.float32)}, file)


def names(checkpoint: Checkpoint) -> list[str]:
    return sorted(path.name for path in checkpoint.path.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("name", ["stream", "runai_streamer"])
def test_to_stream_only_small_files_are_fetched(s3: FaultyS3, model: Path, name: str) -> None:
    weights(model / "model.safetensors")
    (model / "pytorch_model.bin").write_bytes(b"the same once more")

    checkpoint = locate(URI, load_format=name)

    assert names(checkpoint) == ["config.json", "tokenizer[1].json"]
    assert checkpoint.source is not None
    assert checkpoint.source.uri == URI
    assert [file.name for file in checkpoint.files] == ["model.safetensors"]
    assert checkpoint.files[0].crc64nvme is not None


def test_by_default_all_is_fetched(s3: FaultyS3, model: Path) -> None:
    weights(model / "model.safetensors")

    checkpoint = locate(URI)

    assert (names(checkpoint), checkpoint.source) == (["config.json", "model.safetensors", "tokenizer[1].json"], None)


def test_of_several_files_the_index_names_those_that_count(s3: FaultyS3, model: Path) -> None:
    for name in ("model-1.safetensors", "model-2.safetensors", "consolidated.safetensors"):
        weights(model / name)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))

    checkpoint = locate(URI, load_format="stream")

    assert [file.name for file in checkpoint.files] == ["model-1.safetensors", "model-2.safetensors"]


def test_a_file_that_the_index_names_and_nobody_uploaded_is_reported(s3: FaultyS3, model: Path) -> None:
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')

    with pytest.raises(
        CheckpointError, match=r"m/model\.safetensors\.index\.json names model-1\.safetensors, which is"
    ):
        locate(URI, load_format="stream")


def test_what_can_be_streamed_can_also_be_had_on_the_disk(s3: FaultyS3, model: Path) -> None:
    weights(model / "model.safetensors")

    path = locate(URI, load_format="stream").on_disk()

    assert (path / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_pickles_are_fetched_with_advice_to_convert_them(s3: FaultyS3, model: Path, caplog) -> None:
    (model / "pytorch_model.bin").write_bytes(b"pickle")

    checkpoint = locate(URI, load_format="stream")

    assert "pytorch_model.bin" in names(checkpoint)
    assert checkpoint.source is None
    assert "bloomery shard SRC DST" in caplog.text


@pytest.mark.parametrize("load_format", ["auto", "stream"])
def test_pickles_are_refused_where_they_are_not_allowed(s3: FaultyS3, model: Path, load_format: str) -> None:
    (model / "pytorch_model.bin").write_bytes(b"pickle")

    with pytest.raises(
        ConfigurationError, match=r"allow_pickle=false: .*pytorch_model\.bin is a pickle.*bloomery shard"
    ):
        locate(URI, load_format=load_format, allow_pickle=False)


def test_pickles_beside_safetensors_are_nobodys_business(model: Path) -> None:
    weights(model / "model.safetensors")
    (model / "pytorch_model.bin").write_bytes(b"pickle")

    assert locate(model, allow_pickle=False).path == model


@pytest.mark.parametrize("load_format", ["auto", "stream", "safetensors"])
def test_a_directory_is_used_as_it_is(model: Path, load_format: str) -> None:
    assert locate(model, load_format=load_format) == Checkpoint(model)


def test_a_format_that_does_not_exist_is_refused(model: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"option\.load_format=steam: it must be auto or stream"):
        locate(model, load_format="steam")


def test_weights_without_a_configuration_are_no_model(s3: FaultyS3, model: Path) -> None:
    weights(model / "model.safetensors")
    (model / "config.json").unlink()

    with pytest.raises(CheckpointError, match=r"s3://models/m is not a model directory: there is no config\.json"):
        locate(URI, load_format="stream")
