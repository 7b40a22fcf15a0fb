"""Installs the ``requirements.txt`` of a model directory, before its ranks start, into a directory of that model's own.

The directory is named by a hash of everything that decides what goes into it, so that it is made once and then reused:
by the groups of a model, by a restarted server, by two servers at once (a lock lets one of them install while the
others wait). It never touches the ranks' environment: pip sees that environment's packages as installed, puts only what
is missing or of another version into a scratch virtual environment, and the packages of that one become the directory.
Whatever lies there wins over the environment, for this model alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bloomery.errors import WorkerError
from bloomery.processes.child import Child
from bloomery.processes.lock import POLL_SECONDS, FileLock
from bloomery.processes.state import exit_in_words
from bloomery.settings.model import ModelSettings
from bloomery.settings.secret import redact

logger = logging.getLogger("bloomery.requirements")

FILE = "requirements.txt"
WHEELS = "requirements"  # a directory beside it whose packages are found without an index
OFFLINE_VARIABLES = ("DJL_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
# What bloomery's engines and handlers are tested with; another version is the user's choice, and worth a word.
ENGINE_PACKAGES = ("torch", "transformers", "deepspeed", "accelerate", "safetensors", "tokenizers", "numpy")

_SHOWN = 12  # lines of pip's own words in an error
_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)[\s=]*(\S.*)")
# Variables and configuration that would send packages elsewhere.
_PIP_ELSEWHERE = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")
_PIP = {
    "PIP_USER": "0",
    "PIP_NO_INPUT": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_PROGRESS_BAR": "off",
    "PIP_ROOT_USER_ACTION": "ignore",
}
_DESCRIBE = """
import json, sys, sysconfig
places = [path for path in sys.path if path.rstrip("/").endswith(("site-packages", "dist-packages"))]
print(json.dumps({"version": sys.version, "platform": sysconfig.get_platform(), "places": places}))
"""


class RequirementsError(WorkerError):
    """A model's requirements cannot be installed; the message has pip's own words and the line of the file."""


@dataclass(frozen=True)
class _Interpreter:
    """The ranks' Python."""

    executable: str
    version: str
    platform: str
    places: tuple[str, ...]  # where its packages are


async def install(settings: ModelSettings) -> Path | None:
    """The directory of this model's own packages; None when it asks for none, or may do without.

    Raises RequirementsError, unless ``option.requirements_failure=continue``. Cancelling it ends pip.
    """
    file = settings.model_dir.absolute() / FILE
    try:
        if not wanted(file):
            return None
        async with asyncio.timeout(settings.model_loading_timeout):
            return await _install(settings, file)
    except TimeoutError:
        limit = f"model_loading_timeout={settings.model_loading_timeout:g} s"
        error = RequirementsError(f"installing {file} took longer than {limit}")
    except RequirementsError as failure:
        error = failure
    except OSError as failure:
        error = RequirementsError(f"{file} cannot be installed: {failure}")
    if settings.requirements_failure == "fail":
        raise error
    logger.warning("[%s] going on without (option.requirements_failure=continue): %s", settings.name, error)
    return None


def wanted(file: Path) -> list[str]:
    """The lines of a requirements file that ask for something."""
    lines = file.read_text("utf-8", "replace").splitlines() if file.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


async def _install(settings: ModelSettings, file: Path) -> Path:
    label = f"[{settings.name} requirements]"
    interpreter = await _interpreter(settings.python_executable or sys.executable)
    target = _directory() / hashlib.sha256(repr(_identity(file, interpreter)).encode()).hexdigest()[:24]
    if target.is_dir():
        logger.info("%s %s is installed already, in %s", label, file, target)
        return target
    async with _locked(target.with_suffix(".lock"), label):
        if target.is_dir():
            return target  # made by another group, or another server, meanwhile
        scratch = target.with_suffix(".partial")
        shutil.rmtree(scratch, ignore_errors=True)  # of an installation that was cut short
        try:
            packages = await _run_pip(scratch, file, interpreter, label)
            _warn_of_replaced_engines(packages, interpreter, label)
            packages.rename(target)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
    logger.info("%s installed %s into %s", label, file, target)
    return target


async def _interpreter(executable: str) -> _Interpreter:
    lines = await _run([executable, "-P", "-c", _DESCRIBE], os.environ, None)
    try:
        found = json.loads(lines[-1])
        return _Interpreter(executable, found["version"], found["platform"], tuple(found["places"]))
    except (IndexError, ValueError, KeyError, TypeError):
        raise RequirementsError(f"{executable} does not answer like a Python interpreter: {lines[-3:]}") from None


def _directory() -> Path:
    """Where the directories of all models are; only this user may write there, because ranks import what it holds."""
    parent = Path(os.environ.get("DJL_VENV_DIR") or tempfile.gettempdir())
    directory = parent / f"bloomery-requirements-{os.geteuid()}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise RequirementsError(
            f"{directory} cannot be made ({error.strerror}): set TMPDIR or DJL_VENV_DIR to a directory with room"
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise RequirementsError(
            f"{directory} can be written by somebody else: remove it, or set TMPDIR or DJL_VENV_DIR to a directory of "
            "your own"
        )
    return directory


def _identity(file: Path, interpreter: _Interpreter) -> list[object]:
    """Everything that decides what is installed, save what an index holds at the time."""
    parts: list[object] = [interpreter.executable, interpreter.version, interpreter.platform, interpreter.places]
    parts += _contents(file, set())
    parts += _stamps(file.parent / WHEELS)
    return parts


def _contents(file: Path, seen: set[Path]) -> list[object]:
    """The text of ``file``, of the files that it includes, and what the local packages that it names look like."""
    if file in seen or not file.is_file():
        return []
    seen.add(file)
    parts: list[object] = [file.read_bytes()]
    for line in wanted(file):
        included = _INCLUDE.match(line)
        name = (included[1] if included else line.removeprefix("-e ")).split(" #")[0].strip()
        path = file.parent / name.removeprefix("file://")
        with contextlib.suppress(OSError):  # a line can be too long for a file's name
            parts += _contents(path, seen) if included else _stamps(path) if path.exists() else []
    return parts


def _stamps(path: Path) -> list[object]:
    """Names, sizes and times of a file, or of all files of a directory; wheels can be too large to be read."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.is_file() else []
    found = [(file, file.stat()) for file in files if file.is_file()]
    return [(str(file), status.st_size, status.st_mtime_ns) for file, status in found]


@contextlib.asynccontextmanager
async def _locked(path: Path, label: str) -> AsyncIterator[None]:
    lock = FileLock(path)
    try:
        told = False
        while not lock.acquired():
            if not told:
                logger.info("%s waiting for another group or server that is installing the same", label)
            told = True
            await asyncio.sleep(POLL_SECONDS)
        yield
    finally:
        lock.release()


async def _run_pip(scratch: Path, file: Path, interpreter: _Interpreter, label: str) -> Path:
    """Install into a new virtual environment at ``scratch``; the directory of its packages."""
    await _run([interpreter.executable, "-P", "-m", "venv", "--without-pip", str(scratch)], os.environ, None)
    # -P: a json.py of the model directory is not pip's json.
    command = [str(scratch / "bin" / "python"), "-P", "-m", "pip", "install", "-r", str(file), *_sources(file.parent)]
    logger.info("%s %s", label, shlex.join(command))
    env = {name: value for name, value in os.environ.items() if name not in _PIP_ELSEWHERE} | _PIP
    # The environment's own packages count as installed, pip itself is one of them, and none can be removed: they are
    # outside of the virtual environment. (--target would install torch again for whatever depends on it.)
    env["PYTHONPATH"] = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), *interpreter.places])
    try:
        await _run(command, env, file.parent, label)
    except RequirementsError as error:
        lines = [line for line in wanted(file) if _mentions(str(error), line)]
        where = "".join(f"\n{FILE} says: {redact(line)}" for line in lines[:3])
        index = f"\nno index was asked, because {_offline()} is set" if _offline() else ""
        raise RequirementsError(f"{file} cannot be installed: {error}{where}{index}") from None
    return next(scratch.glob("lib*/python*/site-packages"))


def _sources(model_dir: Path) -> list[str]:
    """Where packages come from, beside pip's own configuration."""
    sources = ["--find-links", str(model_dir / WHEELS)] if (model_dir / WHEELS).is_dir() else []
    if _offline():
        # An isolated build would fetch its tools; offline, the environment's have to do.
        sources += ["--no-index", "--no-build-isolation"]
    return sources


def _offline() -> str:
    """The variable that forbids the network, if one does."""
    values = ((name, os.environ.get(name, "").strip().lower()) for name in OFFLINE_VARIABLES)
    return next((name for name, value in values if value in ("1", "true", "yes", "on")), "")


def _mentions(text: str, line: str) -> bool:
    """Whether pip's words are about this line of the file."""
    name = re.match(r"[a-zA-Z0-9][\w.-]*", line)
    return name is not None and re.search(rf"(?i)\b{re.escape(name[0])}\b", text) is not None


def _warn_of_replaced_engines(packages: Path, interpreter: _Interpreter, label: str) -> None:
    own, there = _versions([packages]), _versions(map(Path, interpreter.places))
    for name in ENGINE_PACKAGES:
        if name in own and name in there:
            logger.warning(
                "%s %s %s takes the place of %s for this model; bloomery's engines and built-in handlers are tested "
                "with the latter",
                *(label, name, own[name], there[name]),
            )


def _versions(places: Iterable[Path]) -> dict[str, str]:
    """The distributions that are installed in ``places``, by their ``.dist-info`` directories."""
    found: dict[str, str] = {}
    for path in (path for place in places for path in place.glob("*.dist-info")):
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        found.setdefault(name.lower().replace("_", "-"), version)
    return found


async def _run(command: Sequence[str], env: Mapping[str, str], cwd: Path | None, label: str = "") -> list[str]:
    """Run a command to its end and return what it printed last; with a label its output goes into the log."""
    child = Child.start(command, env, cwd, lambda line: logger.info("%s %s", label, line) if label else None)
    try:
        returncode = await asyncio.shield(child.exited)
    finally:
        await child.end(grace=0)  # it and what it started, if this wait was cancelled
    lines = child.last_lines(200)
    if returncode != 0:
        own_words = [line for line in lines if re.match(r"\s*(ERROR|error)\b|.*No module named pip", line)] or lines
        last = "\n".join(redact(line) for line in own_words[-_SHOWN:])
        raise RequirementsError(f"{Path(command[0]).name} {' '.join(command[2:4])} {exit_in_words(returncode)}\n{last}")
    return lines
