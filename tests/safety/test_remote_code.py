"""Code that comes with a checkpoint runs only when somebody says so: configuration, tokenizer and model, every path."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.server import REPOSITORY, finish, serving, start

from bloomery.errors import UnsupportedModelError

DEMONSTRATION = REPOSITORY / "models" / "shakespeare-bloom"
HOSTILE = """
import os
open(os.environ["MARKER"], "a").write("{what} ran\\n")
from transformers import BloomConfig, BloomForCausalLM, PreTrainedTokenizerFast

class Config(BloomConfig):
    model_type = "hostile"

class Model(BloomForCausalLM):
    config_class = Config

class Tokenizer(PreTrainedTokenizerFast):
    pass
"""
FULL = pytest.mark.full
HUGGINGFACE = ("engine=Python", "option.entryPoint=djl_python.huggingface")
ONE_RANK = ("engine=DeepSpeed", "option.entryPoint=djl_python.deepspeed")
TWO_RANKS = (*ONE_RANK, "option.tensor_parallel_degree=2")
OWN_HANDLER = ("engine=DeepSpeed", "option.kernel_inject=false")  # code/model.py


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The demonstration model without anything hostile yet."""
    return Path(shutil.copytree(DEMONSTRATION, tmp_path / "hostile"))


def hostile_model(checkpoint: Path) -> None:
    """Its configuration and its model are classes of its own."""
    (checkpoint / "own.py").write_text(HOSTILE.format(what="the model's code"))
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    edit(checkpoint / "config.json", lambda config: config.update(model_type="hostile", auto_map=own))


def hostile_tokenizer(checkpoint: Path) -> None:
    """Its tokenizer is."""
    (checkpoint / "own_tokenizer.py").write_text(HOSTILE.format(what="the tokenizer's code"))
    own = {"AutoTokenizer": [None, "own_tokenizer.Tokenizer"]}
    edit(
        checkpoint / "tokenizer_config.json",
        lambda config: config.update(tokenizer_class="Tokenizer", auto_map=own),
    )


def hostile_known_model(checkpoint: Path) -> None:
    """Its configuration is of a known family and names a class of its own all the same."""
    (checkpoint / "own.py").write_text(HOSTILE.format(what="the model's code"))
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    edit(checkpoint / "config.json", lambda config: config.update(auto_map=own))


def options(path: tuple[str, ...], *more: str) -> list[str]:
    return [word for option in (*path, *more) for word in ("-o", option)]


@pytest.mark.parametrize(
    ("path", "make"),
    [
        (TWO_RANKS, hostile_tokenizer),
        pytest.param(OWN_HANDLER, hostile_model, marks=FULL),
        pytest.param(HUGGINGFACE, hostile_model, marks=FULL),
        pytest.param(HUGGINGFACE, hostile_tokenizer, marks=FULL),
        pytest.param(ONE_RANK, hostile_model, marks=FULL),
        pytest.param(ONE_RANK, hostile_tokenizer, marks=FULL),
        pytest.param(TWO_RANKS, hostile_model, marks=FULL),
        pytest.param(OWN_HANDLER, hostile_tokenizer, marks=FULL),
    ],
)
def test_it_does_not_run_and_the_refusal_names_the_option(
    checkpoint: Path, tmp_path: Path, path: tuple[str, ...], make: Callable[[Path], None]
) -> None:
    make(checkpoint)
    marker = tmp_path / "marker"
    server = start(checkpoint, *options(path), env={"MARKER": str(marker), "HF_HOME": str(tmp_path / "hub")})
    try:
        code = server.wait(120)
        assert not marker.exists(), marker.read_text()
        assert code == 1
        report = server.err.read_text().rpartition("could not be loaded")[2]
        assert "option.trust_remote_code" in report, report
    finally:
        finish(server)


@FULL
def test_a_known_model_is_built_from_the_librarys_own_code(checkpoint: Path, tmp_path: Path) -> None:
    hostile_known_model(checkpoint)
    marker = tmp_path / "marker"
    server = start(checkpoint, *options(HUGGINGFACE), env={"MARKER": str(marker), "HF_HOME": str(tmp_path / "hub")})
    try:
        server.wait_for("(?m)^ready: |could not be loaded", seconds=120)
        assert not marker.exists(), marker.read_text()
    finally:
        finish(server)


@pytest.mark.parametrize(
    "path", [OWN_HANDLER, *(pytest.param(path, marks=FULL) for path in (HUGGINGFACE, ONE_RANK, TWO_RANKS))]
)
def test_it_runs_when_it_is_trusted(checkpoint: Path, tmp_path: Path, path: tuple[str, ...]) -> None:
    hostile_model(checkpoint)
    hostile_tokenizer(checkpoint)
    marker = tmp_path / "marker"
    environment = {"MARKER": str(marker), "HF_HOME": str(tmp_path / "hub")}
    server = start(checkpoint, *options(path, "option.trust_remote_code=true"), env=environment)
    try:
        server.wait_for("(?m)^ready: |could not be loaded", seconds=120)
        assert "the model's code ran" in marker.read_text()
    finally:
        finish(server)


@FULL
def test_the_tokenizers_code_runs_when_it_is_trusted(checkpoint: Path, tmp_path: Path) -> None:
    hostile_tokenizer(checkpoint)
    marker = tmp_path / "marker"
    environment = {"MARKER": str(marker), "HF_HOME": str(tmp_path / "hub"), "OPTION_TRUST_REMOTE_CODE": "true"}
    with serving(checkpoint, *options(HUGGINGFACE), env=environment) as server:
        assert "the tokenizer's code ran" in marker.read_text()
        assert server.post({"inputs": "To be", "parameters": {"max_new_tokens": 2}}).status == 200


@pytest.mark.parametrize("make", [hostile_model, hostile_tokenizer])
@pytest.mark.parametrize("engine", ["accelerate", "deepspeed"])
def test_the_engines_refuse_it_unless_told(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, make: Callable[[Path], None]
) -> None:
    from bloomery.engines import accelerate, deepspeed

    make(checkpoint)
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    with pytest.raises(UnsupportedModelError, match=r"own(_tokenizer)?\.py.*option\.trust_remote_code=true"):
        {"accelerate": accelerate.load, "deepspeed": deepspeed.load}[engine](checkpoint)
    assert not (tmp_path / "marker").exists()
