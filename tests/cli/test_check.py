"""``bloomery check``: exit codes and what is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.server import REPOSITORY, model_directory


def check(*arguments: str | Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bloomery", "check", *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY / "container"), **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_model_directory_that_works_as_it_is_exits_0(tmp_path: Path) -> None:
    done = check(model_directory(tmp_path / "m", "", "engine=Python\nbatch_size=4\n"))
    assert done.returncode == 0, done.stderr
    assert f"different batch_size=4  (serving.properties line 2 of {tmp_path / 'm'})" in done.stdout
    assert done.stdout.endswith("0 refused, 1 different, 2 same\n")


def test_a_setting_to_be_changed_exits_1_and_comes_first(tmp_path: Path) -> None:
    done = check(model_directory(tmp_path / "m", "", "engine=Python\noption.rolling_batch=vllm\n"))
    assert done.returncode == 1
    assert done.stdout.startswith("refused   option.rolling_batch=vllm")
    assert "remove the line; batch_size" in done.stdout


def test_variables_come_from_a_file_or_standard_input(tmp_path: Path) -> None:
    text = "docker run -e MODEL_ID=a/b -e HF_TOKEN=hush-hush image\n"
    (tmp_path / "run.sh").write_text(text)
    for done in (check("--env", tmp_path / "run.sh"), check("--env", "-", stdin=text)):
        assert done.returncode == 1
        assert "write HF_MODEL_ID" in done.stdout
        assert "hush" not in done.stdout


def test_variables_of_the_present_environment() -> None:
    done = check("--env-now", HF_MODEL_ID="a/b", SERVING_PROMETHEUS="true")
    assert done.returncode == 0
    assert [line.split()[1] for line in done.stdout.splitlines() if line[0] != " "][:2] == [
        "SERVING_PROMETHEUS=true",
        "HF_MODEL_ID=a/b",
    ]


def test_json(tmp_path: Path) -> None:
    (finding,) = json.loads(check("--env", "-", "--json", stdin="MODEL_ID=a/b").stdout)
    assert finding == {
        "name": "MODEL_ID",
        "value": "a/b",
        "verdict": "refused",
        "how": "write HF_MODEL_ID",
        "origin": "standard input",
    }


@pytest.mark.parametrize("arguments", [[], ["/nowhere"], ["--env", "/nowhere"]])
def test_nothing_to_check_exits_2(arguments: list[str]) -> None:
    done = check(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("bloomery: ")
