"""The requirements.txt of a model directory, installed by real servers without a network."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.packages import source_distribution, wheel
from tests.support.server import Server, finish, model_directory, serving, start
from tests.support.worker_client import wait_until

from bloomery.workers import requirements

REPORT = """
import importlib
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    return Output().add_as_json({name: version(name) for name in inputs.get_as_json()})

def version(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return str(error)
    return [getattr(module, "VERSION", module.__version__ if hasattr(module, "__version__") else ""), module.__file__]
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model directory that wants ``ourlib`` from its own wheels."""
    directory = model_directory(tmp_path / "model", REPORT)
    wheel(directory / "requirements", "ourlib", "1.0")
    (directory / "requirements.txt").write_text("# what it needs\nourlib\n")
    return directory


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of servers that share a directory for temporary files."""
    return {"TMPDIR": str(tmp_path_factory.mktemp("t"))}


def versions(server: Server, *names: str) -> dict[str, str]:
    reply = server.post(list(names))
    assert reply.status == 200, reply.body
    return {name: found[0] if isinstance(found, list) else found for name, found in reply.json().items()}


def files_of(directory: Path) -> list[str]:
    return sorted(str(path) for path in directory.rglob("*") if "__pycache__" not in path.parts)


def installations(directory: str) -> list[str]:
    """What lies in the directory of the installed packages: nothing unfinished."""
    (own,) = Path(directory).glob("bloomery-requirements-*")
    return sorted(path.name for path in own.iterdir() if path.suffix != ".lock")


# --- what a handler finds


def test_a_package_of_the_model_directory_is_there_for_the_handler(model: Path) -> None:
    before = files_of(model)
    with serving(model) as server:
        assert versions(server, "ourlib") == {"ourlib": "1.0"}
        assert "Successfully installed ourlib-1.0" in server.log()
    assert files_of(model) == before


def test_a_source_distribution_is_built_with_the_tools_of_the_environment(model: Path) -> None:
    source_distribution(model / "requirements", "builtlib", "2.0")
    (model / "requirements.txt").write_text("builtlib==2.0\n")
    with serving(model) as server:
        assert versions(server, "builtlib") == {"builtlib": "2.0"}


def test_a_version_of_the_models_own_wins_for_that_model_alone(model: Path, tmp_path: Path) -> None:
    wheel(model / "requirements", "six", "99.0")
    (model / "requirements.txt").write_text("six==99.0\n")
    other = model_directory(tmp_path / "other", REPORT)
    with serving(model) as server:
        assert versions(server, "six") == {"six": "99.0"}
    with serving(other) as server:
        assert versions(server, "six")["six"] != "99.0"


def test_what_the_environment_has_is_not_installed_again(model: Path, shared: dict[str, str]) -> None:
    wheel(model / "requirements", "thirdlib", "1.0", requires="numpy")
    (model / "requirements.txt").write_text("thirdlib\n")
    with serving(model, env=shared) as server:
        found = server.post(["numpy", "thirdlib"]).json()
        own = os.path.dirname(found["thirdlib"][1])
        assert not found["numpy"][1].startswith(own)
        assert "Requirement already satisfied: numpy" in server.log()


def test_a_package_called_like_the_handlers_interface_does_not_take_its_place(model: Path) -> None:
    wheel(model / "requirements", "djl_python", "9.0")
    (model / "requirements.txt").write_text("djl_python\n")
    with serving(model) as server:
        assert versions(server, "djl_python")["djl_python"] != "9.0"


def test_another_version_of_an_engines_package_is_warned_of(model: Path) -> None:
    wheel(model / "requirements", "safetensors", "99.0")
    (model / "requirements.txt").write_text("safetensors==99.0\n")
    with serving(model) as server:
        assert versions(server, "safetensors") == {"safetensors": "99.0"}
        server.wait_for(r"safetensors 99\.0 takes the place of [\d.]+ for this model")


def test_a_file_of_comments_asks_for_nothing(model: Path, shared: dict[str, str]) -> None:
    (model / "requirements.txt").write_text("# nothing\n\n")
    with serving(model, env=shared):
        assert not list(Path(shared["TMPDIR"]).glob("bloomery-requirements-*"))


# --- once


def test_a_second_start_reuses_what_the_first_has_installed(model: Path, shared: dict[str, str]) -> None:
    for attempt in (1, 2):
        with serving(model, env=shared) as server:
            assert versions(server, "ourlib") == {"ourlib": "1.0"}
            assert ("is installed already" in server.log()) == (attempt == 2)


def test_a_changed_file_is_installed_anew(model: Path, shared: dict[str, str]) -> None:
    for version in ("1.0", "2.0"):
        wheel(model / "requirements", "ourlib", version)
        (model / "requirements.txt").write_text(f"-r more.txt\n# {version}\n")
        (model / "more.txt").write_text(f"ourlib=={version}\n")
        with serving(model, env=shared) as server:
            assert versions(server, "ourlib") == {"ourlib": version}
    assert len(installations(shared["TMPDIR"])) == 2


def test_servers_and_groups_that_start_together_install_once(model: Path, shared: dict[str, str]) -> None:
    servers = [start(model, "-o", "minWorkers=2", env=shared) for _ in range(2)]
    try:
        for server in servers:
            server.wait_ready()
            assert versions(server, "ourlib") == {"ourlib": "1.0"}
        assert sum(server.log().count("Successfully installed") for server in servers) == 1
    finally:
        for server in servers:
            finish(server)
    assert len(installations(shared["TMPDIR"])) == 1


# --- failures


def test_a_package_that_does_not_exist_fails_the_load_with_pips_words_and_the_line(model: Path) -> None:
    with (model / "requirements.txt").open("a") as file:
        file.write("--extra-index-url https://user:geheim@localhost:9/simple\nnosuchlib==7.1  # why\n")
    with serving(model, ready=False) as server:
        assert server.wait() == 1
        report = server.err.read_text()
        assert "No matching distribution found for nosuchlib==7.1" in report
        assert "requirements.txt says: nosuchlib==7.1  # why" in report
        assert "no index was asked, because HF_HUB_OFFLINE is set" in report
        assert "option.requirements_failure=continue" in report
        assert "geheim" not in server.log()
        assert installations_of(server) == []


def installations_of(server: Server) -> list[str]:
    return installations(str(server.scratch / "tmp"))


def test_the_load_goes_on_when_told_so(model: Path) -> None:
    (model / "requirements.txt").write_text("nosuchlib\n")
    with serving(model, "-o", "option.requirements_failure=continue") as server:
        assert versions(server, "nosuchlib") == {"nosuchlib": "No module named 'nosuchlib'"}
        assert "going on without" in server.log()


def test_a_python_without_pip_is_told_of(model: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    with serving(model, "-o", f"option.pythonExecutable={python}", ready=False) as server:
        assert server.wait() == 1
        assert "No module named pip" in server.err.read_text()


@pytest.fixture
def endless(model: Path, tmp_path: Path) -> Path:
    """A model directory with a package that is never built, which writes its process id first."""
    os.mkfifo(tmp_path / "gate")
    setup = f"import os\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\nopen({str(tmp_path / 'gate')!r})"
    source_distribution(model / "requirements", "endlesslib", "1.0", setup)
    (model / "requirements.txt").write_text("endlesslib\n")
    return model


def test_the_phase_is_told_and_sigterm_ends_pip(endless: Path, tmp_path: Path) -> None:
    with serving(endless, ready=False) as server:
        pid = tmp_path / "pid"
        wait_until(lambda: pid.exists() and pid.stat().st_size > 0, "the package is being built")
        assert "installing requirements" in server.ping().body.decode()
        assert server.stop() == 0
        assert installations_of(server) == []
    wait_until(lambda: not Path(f"/proc/{pid.read_text()}").exists(), "nothing of pip is left")


def test_the_time_is_limited(endless: Path) -> None:
    with serving(endless, "-o", "option.model_loading_timeout=3", ready=False) as server:
        assert server.wait() == 1
        assert "took longer than model_loading_timeout=3 s" in server.err.read_text()


# --- the directory


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJL_VENV_DIR", str(tmp_path))
    own = tmp_path / f"bloomery-requirements-{os.geteuid()}"
    own.mkdir()
    own.chmod(0o777)
    with pytest.raises(requirements.RequirementsError, match="can be written by somebody else"):
        requirements._directory()


def test_a_link_in_place_of_the_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJL_VENV_DIR", str(tmp_path))
    (tmp_path / f"bloomery-requirements-{os.geteuid()}").symlink_to(tmp_path)
    with pytest.raises(requirements.RequirementsError, match="somebody else"):
        requirements._directory()


def test_the_directory_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJL_VENV_DIR", str(tmp_path / "venvs"))
    assert stat.S_IMODE(requirements._directory().stat().st_mode) == 0o700


def test_what_a_line_asks_for_is_told_from_comments(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# a\n\n  b==1  \n-r c.txt\n")
    assert requirements.wanted(file) == ["b==1", "-r c.txt"]
    assert requirements.wanted(tmp_path / "none.txt") == []


@pytest.mark.parametrize("name", requirements.OFFLINE_VARIABLES)
def test_offline_means_that_no_index_is_asked(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in requirements.OFFLINE_VARIABLES:
        monkeypatch.delenv(other, raising=False)
    assert requirements._sources(tmp_path) == []
    monkeypatch.setenv(name, "True")
    (tmp_path / "requirements").mkdir()
    links = ["--find-links", str(tmp_path / "requirements")]
    assert requirements._sources(tmp_path) == [*links, "--no-index", "--no-build-isolation"]
