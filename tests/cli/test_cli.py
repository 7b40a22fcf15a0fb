"""The command line: exit codes, messages, and how quickly it answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.server import LABORATORY, REPOSITORY, finish, model_directory, start

import bloomery


def run(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bloomery", *map(str, arguments)],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY / "container"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_version(tmp_path: Path) -> None:
    done = run("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"bloomery {bloomery.__version__}\n")


def test_help_imports_nothing_that_takes_time(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom bloomery.cli import app\n"
        "try:\n    app(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'aiohttp', 'uvloop', 'rich', 'asyncio'} & set(sys.modules), sorted(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "container")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--port" in done.stdout


def test_explain_prints_every_setting_with_its_source_and_no_secret(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "m", "", "engine=Python\noption.hf_token=hush-hush\njob_queue_size=5\n")
    done = run("explain", directory, "-o", "batch_size=2", cwd=tmp_path, OPTION_DTYPE="bf16")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert rows["job_queue_size"] == ["5", "serving.properties", "line", "3", "of", str(directory)]
    assert rows["batch_size"] == ["2", "command", "line", "-o", "batch_size"]
    assert rows["option.dtype"] == ["bf16", "environment", "OPTION_DTYPE"]
    assert rows["option.hf_token"][0] == "***"
    assert rows["inference_address"] == ["http://127.0.0.1:8080", "default"]
    assert "hush" not in done.stdout + done.stderr


def test_explain_passes_warnings_on(tmp_path: Path) -> None:
    done = run("explain", model_directory(tmp_path / "m", "", "job_queue_sise=5\n"), cwd=tmp_path)
    assert "did you mean job_queue_size?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere-at-all"], ["nowhere-at-all", "no such directory"]),
        (["-o", "engine=vllm"], ["command line -o engine", "vLLM", "engine=DeepSpeed"]),
        (["-o", "nonsense"], ["-o nonsense", "key=value"]),
        (["-o", "batch_size=none"], ["batch_size=none", "whole number"]),
    ],
)
def test_a_wrong_configuration_exits_2_with_one_sentence(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    model = [str(LABORATORY)] if arguments[0] == "-o" else []
    done = run("serve", *model, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr


def test_a_wrong_option_of_the_command_line_exits_2(tmp_path: Path) -> None:
    assert run("serve", "--prot", "1", cwd=tmp_path).returncode == 2


def test_a_port_in_use_exits_3_and_names_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", LABORATORY, "--port", str(port), cwd=tmp_path)
    assert done.returncode == 3
    assert f"port {port} on 127.0.0.1 is already in use" in done.stderr


def test_a_host_that_is_none_exits_3(tmp_path: Path) -> None:
    done = run("serve", LABORATORY, "--host", "not a host", "--port", "0", cwd=tmp_path)
    assert done.returncode == 3
    assert "'not a host'" in done.stderr


def test_the_ready_line_names_model_and_address() -> None:
    server = start(LABORATORY)
    try:
        server.wait_ready()
        line = server.wait_for(r"(?m)^ready: .*$", server.out)[0]
        assert line.startswith(f"ready: model laboratory on {server.url} (")
    finally:
        finish(server)
