"""``bloomery bench`` as a user runs it, against an endpoint that makes tokens without a model."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import token_server as tokens
from tests.support.emulator import ROLE, Emulator, emulating, environment, until

from bloomery.bench.api import measure
from bloomery.sagemaker.session import Session


def bench(*arguments: object, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "bloomery", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(env),
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture
def server() -> Iterator[tokens.Server]:
    with tokens.token_server() as running:
        yield running


def test_a_sweep_and_its_reports(server: tokens.Server, tmp_path: Path) -> None:
    out, picture = tmp_path / "report", tmp_path / "bench.svg"
    done = bench(
        server.url, "--sweep", "concurrency=1,3", "--rate", "200", "-n", 8, "--max-new-tokens", 5,
        "--goodput", "ttft=30s,tpot=30s", "--price-per-hour", 1.5, "-o", out, "--picture", picture,
    )  # fmt: skip
    assert "| concurrency 3 |" in done.stdout
    found = json.loads((tmp_path / "report.json").read_text())
    assert set(found["throughput"]) == {"requests_per_s", "output_tokens_per_s"}
    assert [level["load"]["name"] for level in found["levels"]] == ["concurrency 1", "concurrency 3", "rate 200"]
    for level in found["levels"]:
        assert (level["requests"], level["succeeded"], level["output_tokens"]) == (8, 8, 40)
        assert level["tokens_counted_by"] == ["endpoint"]
        assert level["goodput"]["met"] == 8
        assert level["ttft_ms"]["p50"] <= level["latency_ms"]["p50"]
    assert (found["load_seconds"], found["load_seconds_from"]) == (3.75, "bloomery_load_seconds of /metrics")
    assert found["cost"]["per_hour"] == 1.5
    assert (tmp_path / "report.md").read_text() in done.stdout
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert picture.read_text().startswith("<svg")
    # The trial, the warm-up of one per connection (the open loop has one), and what was measured; no prompt twice.
    assert len(server.bodies) == 1 + (1 + 8) + (3 + 8) + (1 + 8)
    assert len({body["inputs"] for body in server.bodies}) == len(server.bodies)


def test_the_published_table(server: tokens.Server, tmp_path: Path) -> None:
    done = bench(server.url, "--table", "-n", 3, "--warmup", 0, "--name", "BLOOM", "-o", tmp_path / "t")
    row = json.loads((tmp_path / "t.json").read_text())["table"]
    assert (row["batch"], row["new_tokens"], row["calls"], row["load_seconds"]) == (4, 256, 3, 3.75)
    assert row["tokens_per_s"] == pytest.approx(1024 / (row["latency_ms"]["p50"] / 1000), rel=1e-3)
    assert "| BLOOM    | 4 × 256     | 3.8 " in done.stdout
    assert [len(body["inputs"]) for body in server.bodies] == [4] * 4
    assert not any("stream" in body for body in server.bodies)


def test_errors_are_counted_and_do_not_end_the_measurement(server: tokens.Server, tmp_path: Path) -> None:
    server.answer = lambda number, body: (503, b'{"message": "busy"}') if number and number % 3 == 0 else None
    bench(server.url, "--sweep", "1", "-n", 9, "--warmup", 0, "--max-new-tokens", 2, "-o", tmp_path / "r")
    level = json.loads((tmp_path / "r.json").read_text())["levels"][0]
    assert level["errors"] == {"HTTP 503": {"count": 3, "first": '{"message": "busy"}'}}
    assert level["latency_ms"]["count"] == 6


def test_nothing_but_errors_is_exit_code_1(server: tokens.Server) -> None:
    server.answer = lambda number, body: (500, b"broken") if number else None
    done = bench(server.url, "--sweep", "1", "-n", 2, "--warmup", 0, code=1)
    assert "2 of 2 requests failed (2 × HTTP 500)" in done.stdout


def test_what_cannot_work_is_said_after_one_request(server: tokens.Server) -> None:
    server.answer = lambda number, body: (400, b"model_kwargs are not used by the model: ['ignore_eos']")
    done = bench(server.url, code=1)
    assert "--parameter ignore_eos=null" in done.stderr
    assert len(server.bodies) == 1


def test_an_earlier_report_stands_beside(server: tokens.Server, tmp_path: Path) -> None:
    common = ("--sweep", "1,2", "-n", 4, "--max-new-tokens", 3)
    bench(server.url, *common, "--name", "first", "-o", tmp_path / "first")
    done = bench(server.url, *common, "--name", "second", "--compare", tmp_path / "first.json", "-o", tmp_path / "both")
    assert "| first" in done.stdout
    assert "| second" in done.stdout
    html = (tmp_path / "both.html").read_text()
    assert "first, level by level" in html
    assert json.loads((tmp_path / "both.json").read_text())["name"] == "second"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("http://127.0.0.1:1",), "did not answer the first request: connection"),
        (("http://127.0.0.1:1", "--sweep", "none"), "concurrency=1,2,4,8"),
        (("http://127.0.0.1:1", "--goodput", "speed=1"), "ttft=500ms,tpot=50ms"),
        (("http://127.0.0.1:1", "--table", "--rate", "1"), "leave out --sweep"),
        (("http://127.0.0.1:1", "--compare", "/nowhere.json"), "no report of bloomery bench"),
        (("http://127.0.0.1:1", "-o", "/nowhere/report"), "there is no directory /nowhere"),
        (("http://127.0.0.1:1/v1/chat/completions", "--batch", "2"), "a chat is one prompt"),
    ],
)
def test_mistakes_are_named(arguments: tuple[str, ...], words: str) -> None:
    done = bench(*arguments, code=1 if "did not answer" in words else 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    script = Path(tokens.__file__)
    state = tmp_path_factory.mktemp("state") / "state"
    with emulating(state, "--image", f".*={sys.executable} {script} serve") as running:
        yield running


def test_an_endpoint_of_sagemaker_by_its_name(emulator: Emulator, tmp_path: Path) -> None:
    create(emulator, "tokens")
    common = ("--endpoint-url", emulator.url, "--max-new-tokens", 4, "-n", 6)
    bench("tokens", *common, "--sweep", "1,2", "-o", tmp_path / "stream")
    found = json.loads((tmp_path / "stream.json").read_text())
    assert [level["output_tokens"] for level in found["levels"]] == [24, 24]
    assert found["levels"][0]["ttft_ms"]["count"] == 6
    bench("tokens", *common, "--table", "-o", tmp_path / "table")
    row = json.loads((tmp_path / "table.json").read_text())["table"]
    assert row["load_seconds"] > 0
    assert row["load_seconds_from"] == "CreationTime to LastModifiedTime of DescribeEndpoint"
    with Session.open(endpoint_url=emulator.url) as session:  # as a notebook measures
        found = measure("tokens", session, sweep="2", requests=4, max_new_tokens=3)
    assert (found["name"], found["levels"][0]["output_tokens"]) == ("tokens", 12)
    done = bench("absent", *common, code=1)
    assert "absent" in done.stderr


def create(emulator: Emulator, name: str) -> None:
    """An endpoint in service."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("serving.properties"))
    s3, sagemaker = emulator.client("s3"), emulator.client("sagemaker")
    s3.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    s3.put_object(Bucket="models", Key="model.tar.gz", Body=archive.getvalue())
    container = {"Image": "image", "ModelDataUrl": "s3://models/model.tar.gz"}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)

    def status() -> Any:
        return sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]

    until(lambda: status() != "Creating", "the endpoint to be in service", seconds=90)
    assert status() == "InService"
