"""Execute a notebook, cell by cell, in a kernel that knows of no account but the emulator's."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
# A virtual environment of its own has the notebook of the SageMaker SDK, which wants older packages than ours.
_ENVIRONMENTS = {"6_sagemaker_sdk": ROOT / ".venv-clients"}
_CELL_SECONDS, _EMULATOR_SECONDS = 900, 60
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_READY = re.compile(r"(?m)^ready: SageMaker on (\S+) ")


class Failed(Exception):
    """A cell failed; the text says which and where the executed notebook is."""


def run(
    notebook: nbformat.NotebookNode,
    name: str,
    parameters: Mapping[str, str],
    emulator: str | None,
    output: Path | None,
) -> None:
    """Execute ``notebook`` from top to bottom; after a failure its clean-up, in a fresh kernel.

    ``emulator``: its URL; None: one is started for this. ``output``: where the executed notebook is kept; None: in a
    directory for temporary files, and only after a failure. Raises Failed.
    """
    inject(notebook, parameters)
    folder = Path(tempfile.mkdtemp(prefix="bloomery-notebook-"))
    path = output or folder / f"{name}.ipynb"
    started = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            url = emulator or stack.enter_context(emulating(folder))
            _execute(notebook, name, url, path)
    except Failed as failure:
        text = _COLOUR.sub("", str(failure))
        with contextlib.suppress(OSError):  # kept where it holds something: the notebook, the emulator's log
            folder.rmdir()
        raise Failed(f"{text}\n{name}, executed so far: {path}" if path.exists() else text) from failure
    shutil.rmtree(folder)
    print(f"{name}: {len(notebook.cells)} cells in {time.monotonic() - started:.1f} s")


def inject(notebook: nbformat.NotebookNode, parameters: Mapping[str, str]) -> None:
    """Put other values of parameters in a cell after those of the notebook."""
    (number,) = (each for each, cell in enumerate(notebook.cells) if "parameters" in _tags(cell))
    known = re.findall(r"(?m)^(\w+)\s*=", notebook.cells[number].source)
    for each in parameters:
        if each not in known:
            raise SystemExit(f"-p {each}: the notebook has no such parameter; it has {', '.join(known)}")
    if parameters:
        lines = [f"{each} = {_literal(value)!r}" for each, value in parameters.items()]
        made = nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": ["injected-parameters"]})
        notebook.cells.insert(number + 1, made)


def _literal(text: str) -> object:
    """Numbers, True, None and quoted text as Python has them; anything else is text, "1,2" for one."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if value is None or isinstance(value, (bool, int, float, str)) else text


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def _execute(notebook: nbformat.NotebookNode, name: str, url: str, path: Path) -> None:
    """All cells; when one fails, those that the clean-up needs, and the clean-up, in a kernel of their own: that is
    what a user does who comes back to a notebook that has broken off."""
    try:
        try:
            asyncio.run(_cells(notebook, name, url))
        finally:
            nbformat.write(notebook, path)
    except (CellExecutionError, DeadKernelError, TimeoutError) as failure:
        needed = {"parameters", "injected-parameters", "set-up", "clean-up"}
        rest = nbformat.from_dict({**notebook, "cells": [each for each in notebook.cells if needed & {*_tags(each)}]})
        try:
            asyncio.run(_cells(rest, name, url))
        except (CellExecutionError, DeadKernelError, TimeoutError) as second:
            raise Failed(f"{failure}\nand its clean-up failed, too:\n{second}") from failure
        raise Failed(f"{failure}\nits clean-up was executed") from failure


async def _cells(notebook: nbformat.NotebookNode, name: str, url: str) -> None:
    with tempfile.TemporaryDirectory(prefix="bloomery-kernel-") as folder:
        kernel = AsyncKernelManager(
            kernel_name=name,
            kernel_spec_manager=_kernel(name, Path(folder)),
            connection_file=f"{folder}/connection.json",
            transport="ipc",  # sockets in a directory that is ours alone; no port has to be free
            ip=f"{folder}/socket",
        )
        client = NotebookClient(notebook, km=kernel, timeout=_CELL_SECONDS, coalesce_streams=True)
        client.reset_execution_trackers()
        environment = {**_environment(name, url), "IPYTHONDIR": folder}
        async with client.async_setup_kernel(cwd=str(FOLDER), env=environment, cleanup_kc=True):
            for number, cell in enumerate(notebook.cells):
                await client.async_execute_cell(cell, number)


def _kernel(name: str, folder: Path) -> KernelSpecManager:
    """Knows one kernel, called ``name``: that of the notebook's virtual environment."""
    argv = [_python(name), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernels" / name).mkdir(parents=True)
    described = {"argv": argv, "display_name": name, "language": "python"}
    (folder / "kernels" / name / "kernel.json").write_text(json.dumps(described))
    return KernelSpecManager(kernel_dirs=[str(folder / "kernels")], ensure_native_kernel=False)


def _python(name: str) -> str:
    venv = _ENVIRONMENTS.get(name)
    if venv is None:
        return sys.executable
    if not venv.is_dir():
        raise Failed(f"{venv.name} is missing, the environment of {name}: `scripts/notebooks --run 6` makes it")
    return str(venv / "bin" / "python")


def _environment(name: str, url: str) -> dict[str, str]:
    """What a shell's is after ``eval "$(bloomery sagemaker-local env)"``."""
    command = [sys.executable, "-m", "bloomery", "sagemaker-local", "env", "--port", url.rpartition(":")[2]]
    command += ["--sdk"] if name in _ENVIRONMENTS else []
    clean = _without_account()
    lines = subprocess.run(command, env=clean, stdout=subprocess.PIPE, check=True).stdout
    found = subprocess.run(["sh", "-c", lines + b"\nenv -0"], env=clean, stdout=subprocess.PIPE, check=True).stdout
    return dict(pair.split("=", 1) for pair in found.decode().split("\0") if "=" in pair)


def _without_account() -> dict[str, str]:
    """This process's variables without AWS's, and with this repository's packages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    paths = [str(ROOT / "container"), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


@contextlib.contextmanager
def emulating(folder: Path) -> Iterator[str]:
    """An emulator with its state and its log below ``folder``; its URL."""
    command = [sys.executable, "-m", "bloomery", "sagemaker-local", "--port", "0", "--state", str(folder / "state")]
    command += ["--scaler-period", "1"]  # seconds: nobody waits for a minute here
    log = folder / "emulator.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=_without_account(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the notebook: the clean-up still needs the emulator
        )
    try:
        end = time.monotonic() + _EMULATOR_SECONDS
        while not (ready := _READY.search(log.read_text())):
            if process.poll() is not None or time.monotonic() > end:
                raise Failed(f"the emulator did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield ready[1]
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder / "state", ignore_errors=True)  # the log stays, for a failure
