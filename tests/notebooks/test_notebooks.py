"""The notebooks, executed as a user would, against the real emulator: each ends with nothing left behind."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from tests.support.emulator import REPOSITORY, Emulator, emulating

from bloomery.sagemaker.session import Session

FOLDER = REPOSITORY / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))
REGION = "us-east-1"  # the notebooks' own
SMALL = {
    "1_deploy_bloom": ["REQUESTS=3"],
    "2_any_model": ["MODEL=../models/shakespeare-bloom"],
    "3_benchmark": ["REQUESTS=3", "NEW_TOKENS=8", "SWEEP=1,2", "SWEEP_TOKENS=8"],
    "4_autoscaling": [],
    "5_own_model": [],
    "6_sagemaker_sdk": [],
}
FIRST, *OTHERS = SMALL
EXAMPLE = FOLDER / "2_any_model.py"
INJECTED = '# %%\nraise RuntimeError("on purpose")\n\n'


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with emulating(tmp_path_factory.mktemp("notebooks") / "state", "--scaler-period", "1") as running:
        yield running


@pytest.fixture(scope="module")
def session(emulator: Emulator) -> Iterator[Session]:
    with Session.open("local", endpoint_url=emulator.url, region=REGION, environment={}) as opened:
        yield opened


def script(*arguments: str, timeout: float = 840) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "scripts" / "notebooks.py"), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


def execute(emulator: Emulator, source: str, parameters: list[str], output: Path) -> subprocess.CompletedProcess[str]:
    given = [word for each in parameters for word in ("-p", each)]
    return script("--run", source, *given, "--endpoint-url", emulator.url, "--output", str(output))


def left_behind(session: Session) -> list[str]:
    """Everything that a notebook could have made."""
    listed = [
        ("sagemaker", "ListModels", "Models", "ModelName"),
        ("sagemaker", "ListEndpointConfigs", "EndpointConfigs", "EndpointConfigName"),
        ("sagemaker", "ListEndpoints", "Endpoints", "EndpointName"),
        ("sagemaker", "ListInferenceComponents", "InferenceComponents", "InferenceComponentName"),
        ("cloudwatch", "DescribeAlarms", "MetricAlarms", "AlarmName"),
    ]
    found = [each[name] for service, call, key, name in listed for each in session.call(service, call)[key]]
    scaled = {"ServiceNamespace": "sagemaker"}
    for call, key in (("DescribeScalableTargets", "ScalableTargets"), ("DescribeScalingPolicies", "ScalingPolicies")):
        found += [each["ResourceId"] for each in session.call("application-autoscaling", call, **scaled)[key]]
    for bucket in session.call("s3", "ListBuckets")["Buckets"]:
        contents = session.call("s3", "ListObjectsV2", Bucket=bucket["Name"]).get("Contents", ())
        found += [f"s3://{bucket['Name']}/{each['Key']}" for each in contents]
    return found


def errors(notebook: Path) -> list[str]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [output.ename for cell in cells for output in cell.get("outputs", ()) if output.output_type == "error"]


def with_failure(tmp_path: Path, after: str) -> Path:
    """A copy of a notebook that fails behind the cell that holds ``after``."""
    head, cell, tail = EXAMPLE.read_text().partition(after)
    assert cell, f"{EXAMPLE.name} has no {after!r}"
    rest, mark, tail = tail.partition("# %% [markdown]\n")
    source = tmp_path / EXAMPLE.name
    source.write_text(head + cell + rest + INJECTED + mark + tail)
    return source


def test_the_ipynb_files_are_what_their_sources_say() -> None:
    done = script("--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {each.stem for each in SOURCES} == set(SMALL)
    told = (FOLDER / "README.md").read_text()
    assert all(f"[{each}]({each}.ipynb)" in told for each in SMALL)


def test_a_stale_file_is_named(tmp_path: Path) -> None:
    for each in ("scripts", "notebooks"):
        (tmp_path / each).mkdir()
    for name in ("notebooks.py", "notebook_run.py"):
        (tmp_path / "scripts" / name).write_text((REPOSITORY / "scripts" / name).read_text())
    source = tmp_path / "notebooks" / "a.py"
    source.write_text("# %%\n1\n")
    command = [sys.executable, str(tmp_path / "scripts" / "notebooks.py")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert subprocess.run([*command, "--check"], stdout=subprocess.DEVNULL).returncode == 0
    source.write_text("# %%\n2\n")
    (tmp_path / "notebooks" / "b.ipynb").write_text("{}")
    told = subprocess.run([*command, "--check"], capture_output=True, text=True)
    assert told.returncode == 1
    assert "notebooks/a.ipynb is not what a.py says" in told.stdout
    assert "notebooks/b.ipynb has no source" in told.stdout


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_has_its_form(source: Path) -> None:
    cells = jupytext.read(source, fmt="py:percent").cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    tagged: dict[str, list[Any]] = {}
    for cell in code:
        for tag in cell.metadata.get("tags", []):
            tagged.setdefault(tag, []).append(cell)
    assert {tag: len(found) for tag, found in tagged.items()} == {"parameters": 1, "set-up": 1, "clean-up": 1}
    assert code[0] is tagged["parameters"][0]
    assert code[1] is tagged["set-up"][0]
    assert code[-1] is tagged["clean-up"][0]
    assert len(code) <= 15
    (target,) = re.findall(r'(?m)^TARGET = (".*?")', code[0].source)
    assert ast.literal_eval(target) == "local"
    assert "**Cost:**" in cells[0].source
    # Nothing that costs is made before the price was shown and agreed to.
    agreed = next(number for number, cell in enumerate(code) if 'if TARGET == "aws" and input(' in cell.source)
    assert "per hour" in code[agreed].source
    made = [number for number, cell in enumerate(code) if re.search(r"Endpoint\.deploy|model\.deploy", cell.source)]
    assert made
    assert agreed < min(made)


@pytest.mark.timeout(900)
def test_bloom_from_a_checkpoint_to_an_endpoint_and_back(emulator: Emulator, session: Session, tmp_path: Path) -> None:
    done = execute(emulator, FIRST, SMALL[FIRST], tmp_path / "executed.ipynb")
    assert done.returncode == 0, done.stderr
    assert left_behind(session) == []
    executed = (tmp_path / "executed.ipynb").read_text()
    for shown in ("KING.", "passed", "tokens/s", "USD per 1,000 requests"):
        assert shown in executed


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", OTHERS)
def test_a_notebook_leaves_nothing_behind(emulator: Emulator, session: Session, name: str, tmp_path: Path) -> None:
    done = execute(emulator, name, SMALL[name], tmp_path / "executed.ipynb")
    assert done.returncode == 0, done.stderr
    assert left_behind(session) == []


@pytest.mark.parametrize(
    "after",
    [
        "scratch.cleanup()",
        pytest.param("endpoint = Endpoint.deploy", marks=[pytest.mark.full, pytest.mark.timeout(900)]),
    ],
)
def test_the_clean_up_works_after_a_failure(emulator: Emulator, session: Session, after: str, tmp_path: Path) -> None:
    source, executed = with_failure(tmp_path, after), tmp_path / "executed.ipynb"
    done = execute(emulator, str(source), SMALL["2_any_model"], executed)
    assert done.returncode == 1
    assert "on purpose" in done.stderr
    assert "its clean-up was executed" in done.stderr
    assert f"executed so far: {executed}" in done.stderr
    assert errors(executed) == ["RuntimeError"]
    assert left_behind(session) == []


def test_what_a_notebook_does_not_know_is_refused(emulator: Emulator, tmp_path: Path) -> None:
    done = execute(emulator, FIRST, ["REQUEST=3"], tmp_path / "executed.ipynb")
    assert done.returncode == 1
    assert "-p REQUEST: the notebook has no such parameter; it has TARGET, REGION, NAME" in done.stderr


@pytest.mark.full
def test_an_emulator_is_never_taken_for_an_account(emulator: Emulator, session: Session, tmp_path: Path) -> None:
    done = execute(emulator, FIRST, ["TARGET=aws"], tmp_path / "executed.ipynb")
    assert done.returncode == 1
    assert f"the target is aws, but the endpoint is {emulator.url}" in done.stderr
    assert left_behind(session) == []
