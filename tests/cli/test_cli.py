"""The command line: exit codes, messages, and how quickly it answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tests.support.server import LABORATORY, REPOSITORY, finish, model_directory, serving, start

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


@pytest.mark.parametrize("words", [["-h"], ["serve", "-h"], ["sagemaker-local", "env", "-h"]])
def test_the_short_option_for_help_is_known(tmp_path: Path, words: list[str]) -> None:
    done = run(*words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--help" in done.stdout


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


def test_explain_says_what_each_value_overrode_and_hides_secrets_there_too(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "m", "", "job_queue_size=5\noption.hf_token=one\n")
    (tmp_path / "config.properties").write_text("job_queue_size=7\n")
    environment = {"SERVING_JOB_QUEUE_SIZE": "6", "OPTION_HF_TOKEN": "hush-hush"}
    arguments = ["explain", directory, "-o", "job_queue_size=5", "-f", "config.properties"]
    done = run(*arguments, cwd=tmp_path, **environment)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    at = lines.index("job_queue_size 5 command line -o job_queue_size")
    assert lines[at + 1 : at + 3] == [
        "overrides 6 from environment SERVING_JOB_QUEUE_SIZE",
        f"overrides 7 from config.properties line 1 of {tmp_path}",
    ]
    assert "overrides *** from environment OPTION_HF_TOKEN" in lines
    assert "hush" not in done.stdout + done.stderr


def test_explain_as_json(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "m", "", "job_queue_sise=5\noption.predict_timeout=90\n")
    environment = {"OPTION_PREDICT_TIMEOUT": "30"}
    document = json.loads(run("explain", directory, "--json", cwd=tmp_path, **environment).stdout)
    (row,) = [row for row in document["settings"] if row["key"] == "option.predict_timeout"]
    assert row == {
        "scope": "m",
        "key": "option.predict_timeout",
        "value": "90",
        "source": f"serving.properties line 2 of {directory}",
        "overrode": [{"value": "30", "source": "environment OPTION_PREDICT_TIMEOUT"}],
    }
    assert "did you mean job_queue_size?" in document["warnings"][0]
    assert "InvokeEndpoint" in document["notes"][0]


@pytest.mark.parametrize("command", ["explain", "serve"])
def test_strict_makes_warnings_fatal(tmp_path: Path, command: str) -> None:
    directory = model_directory(tmp_path / "m", "", "job_queue_sise=5\n")
    done = run(command, directory, "--strict", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--strict: serving.properties line 1" in done.stderr


def test_strict_lets_remarks_pass(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "m", "", "option.predict_timeout=90\n")
    done = run("explain", directory, "--strict", cwd=tmp_path)
    assert done.returncode == 0
    assert "note: serving.properties line 1" in done.stderr


def test_djlservings_start_command_names_models_and_store(tmp_path: Path) -> None:
    for name in ("a", "b"):
        model_directory(tmp_path / "store" / name, "")
    scopes = {
        row["scope"]
        for row in json.loads(run("explain", "-s", "store", "-m", "x=a", "--json", cwd=tmp_path).stdout)["settings"]
    }
    assert scopes == {"server", "x"}


def test_explain_leaves_nothing_of_an_archive_behind(tmp_path: Path) -> None:
    model_directory(tmp_path / "m", "", "job_queue_size=5\n")
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "m", ".")
    (tmp_path / "tmp").mkdir()
    done = run("explain", "m.tar.gz", cwd=tmp_path, TMPDIR=str(tmp_path / "tmp"))
    assert "serving.properties line 1 of" in done.stdout
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_archive_is_served_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as archive:
        archive.add(LABORATORY, "laboratory")
    server = start(tmp_path / "packed.tar.gz")
    try:
        server.wait_ready()
        assert "ready: model packed on" in server.out.read_text()
        assert server.stop() == 0
        assert server.leftovers == []
    finally:
        finish(server)


@pytest.mark.parametrize(
    ("lines", "seen"),
    [("", ["4", "5"]), ("load_on_devices=gpu1;cpu\n", ["", "5"]), ("option.tensor_parallel_degree=2\n", ["4,5"])],
)
def test_each_group_sees_the_devices_that_are_its_own(tmp_path: Path, lines: str, seen: list[str]) -> None:
    model = (
        "import os, pathlib\n"
        "def handle(inputs):\n"
        "    note = pathlib.Path('notes', str(os.getpid()))\n"
        "    note.with_suffix('.part').write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "    note.with_suffix('.part').rename(note)\n"
    )
    directory = model_directory(tmp_path / "m", model, f"engine=Python\n{lines}")
    (directory / "notes").mkdir()
    with serving(directory, env={"CUDA_VISIBLE_DEVICES": "4,5"}) as server:
        for index in range(len(seen)):
            server.wait_for(rf"m/{index}\] ready after")
        notes = [path.read_text() for path in (directory / "notes").iterdir()]
    assert sorted(notes) == seen


def test_a_server_may_start_without_a_model(tmp_path: Path) -> None:
    server = start("-o", "load_models=NONE")
    try:
        assert server.ping().status == 200
        assert "no model yet" in server.out.read_text()
        assert server.stop() == 0
    finally:
        finish(server)


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


def test_a_model_that_is_added_later_has_the_defaults_of_config_properties(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text("job_queue_size=7\nload_models=NONE\n")
    with serving("-f", tmp_path / "config.properties", ready=False) as server:
        assert server.request("POST", f"/models?url={LABORATORY}").status == 200
        (described,) = server.request("GET", "/models/laboratory").json()
    assert described["models"][0]["queueSize"] == 7


def test_the_ready_line_names_model_and_address() -> None:
    server = start(LABORATORY)
    try:
        server.wait_ready()
        line = server.wait_for(r"(?m)^ready: .*$", server.out)[0]
        assert line.startswith(f"ready: model laboratory on {server.url} (")
    finally:
        finish(server)


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("awscrt", ["fetch", "s3://bucket/model", "target"]),
        ("boto3", ["ls", "--region", "us-west-2"]),
    ],
)
def test_a_command_whose_packages_are_not_installed_says_which_extra_brings_them(
    tmp_path: Path, package: str, command: list[str]
) -> None:
    block = f"import sys\nsys.modules[{package!r}] = None\nsys.argv[1:] = {command!r}\n"
    script = f"{block}from bloomery.cli import main\nmain()"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "container")}
    arguments = [sys.executable, "-c", script]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    wanted = f"bloomery: this command needs {package}, which is not installed: pip install 'bloomery[checkpoints]'\n"
    assert (done.returncode, done.stderr) == (2, wanted)
