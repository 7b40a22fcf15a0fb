"""What ``bloomery serve [DIR|URI]`` may be pointed at."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloomery.errors import ConfigurationError
from bloomery.settings.archive import Unpacked
from bloomery.settings.source import Home, Source, find, name_of


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A clone of the repository."""
    (tmp_path / "clone" / "code").mkdir(parents=True)
    (tmp_path / "clone" / "code" / "model.py").touch()
    return Home(tmp_path / "clone")


def checkpoint(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").touch()
    (path / "model.safetensors").touch()
    return path


def only(argument: str | Path | None, home: Home) -> Source:
    (found,) = find(None if argument is None else str(argument), home, Unpacked())
    return found


def test_nothing_means_the_products_own_model_directory(home: Home) -> None:
    found = only(None, home)
    assert found.is_default
    assert found.model_dir == home.model_dir


@pytest.mark.parametrize("file", ["serving.properties", "model.py", "mine.py"])
def test_a_model_directory_is_known_by_these_files_and_gives_the_name(tmp_path: Path, home: Home, file: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / file).touch()
    found = only(tmp_path / "mine", home)
    assert (found.model_dir, found.name, found.given) == (tmp_path / "mine", "mine", {})


def test_a_bare_checkpoint_is_served_by_the_products_own_handler(tmp_path: Path, home: Home) -> None:
    found = only(checkpoint(tmp_path / "opt"), home)
    assert found.model_dir == home.model_dir
    assert found.given["option.model_id"].text == str(tmp_path / "opt")


@pytest.mark.parametrize("uri", ["s3://bucket/opt-30b/", "hf://facebook/opt-125m", "facebook/opt-125m"])
def test_a_uri_or_hub_id_too(home: Home, uri: str) -> None:
    found = only(uri, home)
    assert found.model_dir == home.model_dir
    assert found.given["option.model_id"].text == uri


def test_without_a_clone_the_built_in_directory_serves(tmp_path: Path) -> None:
    home = Home(None)
    assert (only("s3://bucket/x", home).model_dir / "serving.properties").is_file()
    assert home.properties is None


def test_a_directory_of_models_is_one_model_each(tmp_path: Path, home: Home) -> None:
    store = tmp_path / "store"
    (store / "code").mkdir(parents=True)
    (store / "code" / "model.py").touch()
    checkpoint(store / "opt")
    (store / "lost+found").mkdir()
    code, opt = find(str(store), home, Unpacked())
    assert (code.name, code.model_dir) == ("code", store / "code")
    assert opt.given["option.model_id"].text == str(store / "opt")


def test_the_clones_own_code_is_the_default(home: Home) -> None:
    assert only(home.model_dir, home).is_default


@pytest.mark.parametrize("argument", ["./missing", "/no/such/dir", "missing", "a/b/c"])
def test_a_path_that_is_not_there_is_refused(home: Home, argument: str) -> None:
    with pytest.raises(ConfigurationError, match="no such directory"):
        find(argument, home, Unpacked())


def test_what_looks_like_a_hub_id_below_a_directory_at_hand_is_a_missing_path(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(ConfigurationError, match="no such directory"):
        find("models/mistyped", home, Unpacked())


def test_an_empty_directory_is_refused_with_what_it_holds(tmp_path: Path, home: Home) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").touch()
    with pytest.raises(ConfigurationError, match=r"it holds readme\.txt"):
        find(str(tmp_path / "empty"), home, Unpacked())


@pytest.mark.parametrize(
    ("file", "advice"),
    [
        ("adapter_config.json", "a LoRA adapter, which is no whole model; merge it into its base"),
        ("model-Q4_K.gguf", "GGUF files are llama.cpp's, and are not served here"),
        ("model.safetensors", "weights without a config.json"),
        ("pytorch_model.bin", "weights without a config.json"),
    ],
)
def test_what_newcomers_take_for_a_model_is_told_from_one(tmp_path: Path, home: Home, file: str, advice: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / file).touch()
    with pytest.raises(ConfigurationError, match=f"it holds {file}.*{advice}"):
        find(str(tmp_path / "m"), home, Unpacked())


def test_a_gguf_file_is_refused_as_one(tmp_path: Path, home: Home) -> None:
    (tmp_path / "m.GGUF").touch()
    with pytest.raises(ConfigurationError, match=r"m\.GGUF: GGUF files are llama\.cpp's"):
        find(str(tmp_path / "m.GGUF"), home, Unpacked())


def test_a_configuration_without_weights_is_refused(tmp_path: Path, home: Home) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").touch()
    with pytest.raises(ConfigurationError, match="no weights"):
        find(str(tmp_path / "half"), home, Unpacked())


def test_a_file_is_refused(tmp_path: Path, home: Home) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ConfigurationError, match="is a file"):
        find(str(tmp_path / "model.onnx"), home, Unpacked())


@pytest.mark.parametrize(
    ("where", "name"),
    [("s3://bucket/a/opt-30b/", "opt-30b"), ("facebook/opt-125m", "opt-125m"), ("/models/my model", "my-model"),
     ("s3://bucket", "bucket"), ("/", "model")],
)  # fmt: skip
def test_a_checkpoints_name_is_its_last_part_fit_for_a_url(where: str, name: str) -> None:
    assert name_of(where) == name
