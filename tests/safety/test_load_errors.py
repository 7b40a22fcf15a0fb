"""A model that cannot load: the port answers meanwhile, the process fails, and its last words are the handler's own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tests.support.server import REPOSITORY, Server, finish, model_directory, start

MODEL = REPOSITORY / "models" / "shakespeare-bloom"
# Each: the model.py, further properties, and what the report must say.
HANDLERS = {
    "an import that fails": ("import no_such_package\n", "", r"ModuleNotFoundError: No module named 'no_such_package'"),
    "a syntax error": ("def handle(inputs)\n    return None\n", "", r"SyntaxError: expected ':'"),
    "an exception at import": ("raise RuntimeError('not today')\n", "", r"RuntimeError: not today"),
    "an exception in the initialise call": (
        "def handle(inputs):\n    return helper()\n\ndef helper():\n    raise KeyError('weights')\n",
        "",
        r"(?s)KeyError: 'weights'.*line 5, in helper",
    ),
    "a chain of exceptions": (
        """
def handle(inputs):
    try:
        open('/no/such/file')
    except OSError as error:
        raise ValueError('cannot read') from error
""",
        "",
        r"(?s)ValueError: cannot read.*caused by FileNotFoundError",
    ),
    "no such function": ("def predict(inputs):\n    return None\n", "", r"no function 'handle'.*predict"),
    "an answer of 500": (
        "from djl_python import Output\n\ndef handle(inputs):\n    return Output().error('the disk is full', 500)\n",
        "",
        r"the disk is full",
    ),
    "no output": ("def handle(inputs):\n    return 'ready'\n", "", r"Invalid output type: <class 'str'>"),
    "sys.exit": ("import sys\nprint('leaving')\nsys.exit(3)\n", "", r"exited with code 3"),
    "sys.exit with a text": ("import sys\nsys.exit('no licence')\n", "", r"(?s)exited with code 1.*no licence"),
    "os._exit": ("import os\nprint('bye', flush=True)\nos._exit(7)\n", "", r"(?s)exited with code 7.*bye"),
    "a kill by itself": (
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
        "",
        r"killed by signal 9 \(SIGKILL\)",
    ),
    "a crash in C": ("import ctypes\nctypes.string_at(0)\n", "", r"killed by signal 11 \(SIGSEGV\)"),
    "no end": (
        "import time\n\ndef handle(inputs):\n    time.sleep(600)\n",
        "option.model_loading_timeout=1\n",
        r"(?s)model_loading_timeout=1 s.*line 4, in handle",
    ),
    "garbage on stdout": (
        "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 100)\nraise ValueError('after the noise')\n",
        "",
        r"ValueError: after the noise",
    ),
}
REPORT = re.compile(r"\n=+ model '\w+' could not be loaded =+\n.*\n=+\n\s*\Z", re.DOTALL)


def report(server: Server, seconds: float = 60) -> str:
    """The block at the very end of stderr, after the process has failed."""
    assert server.wait(seconds) == 1
    match = REPORT.search(server.err.read_text())
    assert match, server.err.read_text()
    return match[0]


@pytest.mark.parametrize(("model", "properties", "words"), HANDLERS.values(), ids=list(HANDLERS))
def test_its_last_words_are_one_block_with_the_handlers_own(
    tmp_path: Path, model: str, properties: str, words: str
) -> None:
    server = start(model_directory(tmp_path / "m", model, f"engine=Python\n{properties}"))
    try:
        text = report(server)
        assert re.search(words, text), text
        assert "to do: " in text
        assert len(text.splitlines()) < 60
        assert server.leftovers == []
    finally:
        finish(server)


CHECKPOINTS = {
    "a directory that is not there": ("nowhere", r"nowhere"),
    "no weights": pytest.param("weightless", r"no file named model\.safetensors", marks=pytest.mark.full),
    "weights that are cut off": ("cut", r"damaged or cut off"),
    "a configuration that is no JSON": pytest.param("garbled", r"config\.json", marks=pytest.mark.full),
}


@pytest.mark.parametrize(("name", "words"), CHECKPOINTS.values(), ids=list(CHECKPOINTS))
def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path: Path, name: str, words: str) -> None:
    path = tmp_path / name
    if name != "nowhere":
        shutil.copytree(MODEL, path)
    if name == "weightless":
        (path / "model.safetensors").unlink()
    if name == "cut":
        data = (path / "model.safetensors").read_bytes()
        (path / "model.safetensors").write_bytes(data[: len(data) // 2])
    if name == "garbled":
        (path / "config.json").write_text('{"model_type": "bloom"')
    properties = f"engine=Python\noption.entryPoint=djl_python.huggingface\noption.model_id={path}\n"
    server = start(model_directory(tmp_path / "m", "", properties))
    try:
        code = server.wait(120)
        text = server.err.read_text()
        assert code in (1, 2), text
        if code == 1:
            text = report(server)
        assert re.search(words, text), text
        assert str(path) in text
    finally:
        finish(server)


@pytest.mark.parametrize("engine", ["vLLM", "NoSuch"])
def test_an_engine_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path, engine: str) -> None:
    server = start(model_directory(tmp_path / "m", "", f"engine={engine}\n"))
    try:
        assert server.wait() == 2
        assert re.fullmatch(rf"bloomery: .*engine={engine}: .*\n", server.err.read_text())
    finally:
        finish(server)


def test_meanwhile_the_port_answers_with_the_phase_and_then_closes(tmp_path: Path) -> None:
    model = "import time\n\ndef handle(inputs):\n    time.sleep(1.5)\n    raise RuntimeError('no')\n"
    server = start(model_directory(tmp_path / "m", model))
    try:
        port = server.port
        assert port
        reply = server.ping()
        assert (reply.status, reply.json()["m"]["state"]) == (503, "loading")
        assert server.post({}).status == 503
        assert "RuntimeError: no" in report(server)
    finally:
        finish(server)
