"""Planted secrets, and a look at everything that is printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.server import REPOSITORY, finish, model_directory, serving, start

PLANTED = "hush-hush"
URL = f"https://user:{PLANTED}1@bucket.s3.amazonaws.com/m?X-Amz-Credential={PLANTED}2&X-Amz-Signature={PLANTED}3"
PROPERTIES = f"""engine=Python
option.hf_token={PLANTED}4
option.source={URL}
option.env=HTTPS_PROXY=http://me:{PLANTED}5@proxy:80,API_KEY={PLANTED}6
"""
ENVIRONMENT = {"HF_TOKEN": f"{PLANTED}7", "OPTION_AWS_SECRET_ACCESS_KEY": f"{PLANTED}8", "OPTION_DATASET_URL": URL}


def printed(*arguments: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bloomery", *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY / "container"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_explain(tmp_path: Path, flag: list[str]) -> None:
    text = printed("explain", model_directory(tmp_path / "m", "", PROPERTIES), *flag, **ENVIRONMENT)
    assert "https://***@bucket.s3.amazonaws.com/m?X-Amz-Credential=***&X-Amz-Signature=***" in text
    assert PLANTED not in text


@pytest.mark.parametrize(
    "arguments",
    [
        [URL + "/a b"],
        ["-m", f"[m]={URL}"],
        ["-o", f"option.entryPoint={URL}"],
        ["-o", f"option.hf_token={PLANTED}", "-o", "batch_size=none"],
        ["-o", f"engine={URL}"],
        ["-o", f"option.predict_timeout={URL}"],
        ["-o", f"inference_address=http://me:{PLANTED}@host:1/x"],
    ],
)
def test_refusals(arguments: list[str]) -> None:
    text = printed("serve", *arguments, "--port", "0", **ENVIRONMENT)
    assert text.startswith("bloomery: ")
    assert PLANTED not in text


def test_the_report_of_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    model = "def handle(inputs):\n    raise ValueError('cannot fetch ' + inputs.get_property('source'))\n"
    server = start(model_directory(tmp_path / "m", model, PROPERTIES), env=ENVIRONMENT)
    try:
        assert server.wait() == 1
        log = server.log()
    finally:
        finish(server)
    assert "cannot fetch https://***@bucket" in log
    assert PLANTED not in log


def test_the_log_of_a_server_whose_handler_gets_them_whole(tmp_path: Path) -> None:
    model = (
        "import logging\nimport os\n"
        "def handle(inputs):\n"
        "    found = inputs.get_properties()\n"
        "    if inputs.is_empty():\n"
        "        global seen\n"
        "        seen = found['hf_token'], found['source'], os.environ['API_KEY'], os.environ['HF_TOKEN']\n"
        "        logging.warning('fetching %s', found['source'])\n"
        "        print('fetching', found['source'])\n"
        "        return None\n"
        "    from djl_python import Output\n"
        "    return Output().add_as_json(seen)\n"
    )
    with serving(model_directory(tmp_path / "m", model, PROPERTIES), env=ENVIRONMENT) as server:
        answer = server.post({}).json()
        log = server.log() + server.ping().body.decode() + server.request("GET", "/models").body.decode()
    assert answer == [f"{PLANTED}4", URL, f"{PLANTED}6", f"{PLANTED}7"]
    assert log.count("fetching https://***@bucket") == 2
    assert PLANTED not in log
