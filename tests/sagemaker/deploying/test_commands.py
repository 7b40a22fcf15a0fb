"""``bloomery deploy`` and ``bloomery invoke`` as a user runs them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sagemaker.deploying.conftest import BUCKET, TYPE, left
from tests.support.emulator import REGION, ROLE, Emulator, environment

from bloomery.cli.commands.invoke import invoke
from bloomery.errors import ConfigurationError
from bloomery.sagemaker.deploying import Deployment, Endpoint
from bloomery.sagemaker.session import Session


class Command:
    """Runs bloomery against the emulator, with a user's environment that has no keys."""

    def __init__(self, emulator: Emulator, home: Path) -> None:
        self.env = environment({"AWS_ENDPOINT_URL": emulator.url, "AWS_REGION": REGION, "HOME": str(home)})

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "bloomery", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
        )

    def __call__(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(stdin, timeout=120)
        return process.returncode, out, err


@pytest.fixture
def bloomery(emulator: Emulator, tmp_path: Path) -> Command:
    return Command(emulator, tmp_path)


@pytest.fixture(scope="module")
def served(session: Session, archive: str) -> Iterator[str]:
    with Endpoint.deploy(Deployment("asked", (TYPE,), archive, image="echo", role=ROLE), session):
        yield "asked"


def test_deploy_invoke_delete(bloomery: Command, session: Session, archive: str, name: str) -> None:
    given = ("--model-data", archive, "--image", "echo", "-t", TYPE, "-e", "A=b", "--ttl", "4h")
    code, out, err = bloomery("deploy", name, *given)
    assert code == 0, err
    assert out.startswith(f"endpoint {name} is InService after ")
    assert f"bloomery delete {name} --target local --endpoint-url http://127.0.0.1:" in out
    assert f"1 × {TYPE}: $0.25 per hour (AWS's price list, on demand); this emulator costs nothing" in err
    assert "Creating for 0:0" in err
    code, out, err = bloomery("invoke", name, "To be", "-p", "max_new_tokens=4", "-p", "stop=end")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"inputs": "To be", "parameters": {"max_new_tokens": 4, "stop": "end"}}
    assert bloomery("delete", name)[0] == 0
    assert left(session, name) == []


def test_a_dry_run_shows_the_requests_and_makes_none(
    bloomery: Command, session: Session, archive: str, name: str
) -> None:
    code, out, _ = bloomery("deploy", name, "--model-data", archive, "--image", "echo", "-t", TYPE, "--dry-run")
    assert code == 0
    requests = [json.loads(line) for line in out.splitlines()]
    assert [each["operation"] for each in requests] == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]
    assert requests[0]["parameters"]["PrimaryContainer"] == {"Image": "echo", "ModelDataUrl": archive}
    assert left(session, name) == []


def test_mistakes_are_told_of_together(bloomery: Command) -> None:
    code, out, err = bloomery("deploy", "my_demo", "-t", "ml.g5.xlarg", "--startup-timeout", "30")
    assert (code, out) == (1, "")
    for words in ("name: 'my_demo' is not", "did you mean ml.g5.xlarge", "startup timeout: 30 is too little"):
        assert words in err


@pytest.mark.full
def test_a_failure_shows_why_and_how_to_go_on(bloomery: Command, session: Session, archive: str, name: str) -> None:
    given = ("--model-data", archive, "--image", "echo", "-t", TYPE, "-e", "DIE_AT_START=3")
    code, _, err = bloomery("deploy", name, *given)
    assert code == 1
    assert "cannot find the weights\n" in err
    assert f"bloomery: endpoint {name} failed: The primary container for production variant AllTraffic" in err
    assert "what to do: the container ended" in err
    assert f"remove it: bloomery delete {name}" in err
    Endpoint(name, session).delete()


def test_ctrl_c_leaves_the_endpoint_and_says_so(bloomery: Command, session: Session, archive: str, name: str) -> None:
    given = ("--model-data", archive, "--image", "echo", "-t", TYPE, "-e", "SLOW_START=300")
    with bloomery.start("deploy", name, *given) as process:
        assert process.stderr is not None
        while f"CreateEndpoint {name}" not in (line := process.stderr.readline()):
            assert line, "it ended first"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"endpoint {name} goes on without this command. Look: bloomery status {name}" in err
    endpoint = Endpoint(name, session)
    assert endpoint.status() == "Creating"
    endpoint.delete()


@pytest.mark.full
def test_no_wait(bloomery: Command, session: Session, archive: str, name: str) -> None:
    code, out, _ = bloomery("deploy", name, "--model-data", archive, "--image", "echo", "-t", TYPE, "--no-wait")
    assert (code, out.startswith(f"endpoint {name} is asked for; look: bloomery status")) == (0, True)
    Endpoint(name, session).wait().delete()


class TestInvoke:
    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({}, "nothing given: say what to send with one of TEXT, --json"),
            ({"text": "a", "json_text": "1"}, "TEXT and --json given"),
            ({"json_text": "{"}, "--json is no JSON"),
            ({"text": "a", "parameters": ["max"]}, "takes KEY=VALUE, such as max_new_tokens=64; got 'max'"),
            ({"file": "f", "parameters": ["a=1"]}, "a file is sent as it is"),
            ({"text": "a", "stream": True, "asynchronous": True}, "exclude each other"),
            ({"input_location": "s3://b/k"}, "--input is for --async"),
        ],
    )
    def test_what_makes_no_sense(self, given: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigurationError, match=words):
            invoke("any", **given)

    def test_bodies_come_from_anywhere(self, bloomery: Command, served: str, tmp_path: Path) -> None:
        file = tmp_path / "body.json"
        file.write_text('{"from": "file"}')
        assert bloomery("invoke", served, "--file", str(file))[1] == '{"from": "file"}\n'
        assert bloomery("invoke", served, "--stdin", stdin="any bytes")[1] == "any bytes\n"
        assert json.loads(bloomery("invoke", served, "--json", '{"a": 1}')[1]) == {"a": 1}

    def test_only_the_text_is_shown_of_generated_text(self, bloomery: Command, served: str) -> None:
        body = '[{"generated_text": "not to be"}]'
        assert bloomery("invoke", served, "--json", body)[1] == "not to be\n"
        assert json.loads(bloomery("invoke", served, "--raw", "--json", body)[1]) == json.loads(body)

    def test_a_stream(self, bloomery: Command, served: str) -> None:
        body = json.dumps({"do": {"stream": ["not", " to", " be"]}})
        assert bloomery("invoke", served, "--stream", "--json", body)[:2] == (0, "not to be\n")

    def test_the_containers_error(self, bloomery: Command, served: str) -> None:
        code, out, err = bloomery("invoke", served, "--json", '{"do": {"status": 400}}')
        assert (code, out) == (1, "")
        assert "bloomery: the container of endpoint asked answered 400: " in err
        assert "its log: /aws/sagemaker/Endpoints/asked" in err

    def test_a_dry_run(self, bloomery: Command) -> None:
        code, out, _ = bloomery("invoke", "any", "hello", "--stream", "--dry-run", "--component", "c")
        assert code == 0
        assert json.loads(out) == {
            "service": "sagemaker-runtime",
            "operation": "InvokeEndpointWithResponseStream",
            "parameters": {
                "EndpointName": "any",
                "Body": '{"inputs": "hello", "stream": true}',
                "ContentType": "application/json",
                "InferenceComponentName": "c",
            },
        }


@pytest.mark.full
def test_an_asynchronous_endpoint(bloomery: Command, session: Session, archive: str, name: str) -> None:
    given = ("--model-data", archive, "--image", "echo", "-t", TYPE, "--async-output", f"s3://{BUCKET}/answers/")
    assert bloomery("deploy", name, *given)[0] == 0
    code, out, err = bloomery("invoke", name, "--async", "--json", '{"a": 1}')
    assert (code, json.loads(out)) == (0, {"a": 1})
    assert f"the answer comes to s3://{BUCKET}/answers/" in err
    code, out, _ = bloomery("invoke", name, "--async", "x", "--wait", "0")
    assert (code, out.startswith(f"s3://{BUCKET}/answers/")) == (0, True)
    Endpoint(name, session).delete()
