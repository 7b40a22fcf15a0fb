"""The file that leads the SageMaker SDK's calls of STS to the emulator, in interpreters of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHIM = Path(__file__).parents[2] / "container" / "bloomery" / "sagemaker" / "sdk_shim"
_AS_THE_SDK = """
import botocore.session
session = botocore.session.Session()
session.set_credentials("key", "secret")
for service, url in ("sts", "https://sts.us-east-1.amazonaws.com"), ("s3", "https://s3.us-east-1.amazonaws.com"):
    print(session.create_client(service, region_name="us-east-1", endpoint_url=url).meta.endpoint_url)
"""


def run(script: str, *paths: Path, **variables: str) -> list[str]:
    """The lines that ``script`` prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
    environment = kept | {"PYTHONPATH": os.pathsep.join(map(str, paths)), **variables}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS"])
def test_sts_is_where_the_variable_says_and_nothing_else_is_touched(variable: str) -> None:
    here = "http://127.0.0.1:9"
    assert run(_AS_THE_SDK, SHIM, **{variable: here}) == [here, "https://s3.us-east-1.amazonaws.com"]


def test_without_a_variable_nothing_changes() -> None:
    assert run(_AS_THE_SDK, SHIM)[0] == "https://sts.us-east-1.amazonaws.com"


def test_another_sitecustomize_still_has_its_turn(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hello')")
    assert run("print('and on')", SHIM, tmp_path) == ["hello", "and on"]
