"""``bloomery verify`` as a user runs it: a real server whose model has one wrong weight."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tests.support.emulator import environment
from tests.support.server import REPOSITORY, Server, serving

DEMONSTRATION = REPOSITORY / "models" / "shakespeare-bloom"
WRONG = "transformer.h.2.mlp.dense_4h_to_h.weight"


def verify(*arguments: object, code: int) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "bloomery", "verify", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        env=environment({"HF_HUB_OFFLINE": "1"}),
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model with one weight of four million that is wrong."""
    directory = tmp_path_factory.mktemp("damaged") / "shakespeare-bloom"
    shutil.copytree(DEMONSTRATION, directory)
    weights = load_file(directory / "model.safetensors")
    name = next(name for name in weights if WRONG.endswith(name))
    weights[name][17, 33] += 1.5
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def server(damaged: Path) -> Iterator[Server]:
    with serving(damaged, "-o", "engine=Python") as running:
        yield running


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    file.write_text("To be, or not to be\nShall I compare thee\nMy lord, the king\n")
    return file


def test_one_wrong_weight_is_found(server: Server, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "verify.json"
    done = verify(
        server.url, "--reference", DEMONSTRATION, "--dtype", "fp32", "--prompts", prompts, "--max-new-tokens", 16,
        "--json", out, code=1,
    )  # fmt: skip
    assert "FAILED" in done.stdout
    report = json.loads(out.read_text())
    assert report["schema"] == "bloomery.verify/1"
    assert not report["passed"]
    assert any("log-probability is off by" in why for each in report["prompts"] for why in each["failures"])


def test_the_same_server_is_right_about_its_own_weights(server: Server, damaged: Path, prompts: Path) -> None:
    done = verify(
        server.url, "--reference", damaged, "--dtype", "fp32", "--prompts", prompts, "--max-new-tokens", 16, code=0
    )
    assert done.stdout.rstrip().endswith("passed")
    assert "4,208,640 parameters; fp32 explains a gap of" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--dtype", "fp8"), 2, "--dtype fp8: it must be one of fp16, bf16, fp32, int8"),
        (("--parameter", "nonsense"), 2, "NAME=VALUE"),
        ((), 1, "the endpoint did not answer"),
    ],
)
def test_mistakes_are_named(arguments: tuple[str, ...], code: int, words: str) -> None:
    done = verify("http://127.0.0.1:1", "--reference", DEMONSTRATION, *arguments, code=code)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reference_that_is_not_there_is_said_so_before_the_endpoint_is_asked(tmp_path: Path) -> None:
    done = verify("http://127.0.0.1:1", "--reference", tmp_path / "absent", code=1)
    assert f"{tmp_path / 'absent'} does not exist" in done.stderr
    assert "Traceback" not in done.stderr
