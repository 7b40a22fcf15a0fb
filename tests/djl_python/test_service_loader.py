"""Loading a handler, seen from the server's end where its errors arrive."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.worker_client import ServeHandler, running_worker, write_model

from bloomery.errors import ConfigurationError
from djl_python.service_loader import ModelService, load_module

NAMES = """
import os
from djl_python import Output

class Kept:
    pass

def handle(inputs):
    import pickle
    return Output().add([__name__, os.getcwd(), type(pickle.loads(pickle.dumps(Kept()))).__name__])

def other(inputs):
    return Output().add("other")
"""


def error_of(body: str) -> str:
    return str(json.loads(body)["error"])


@pytest.fixture(autouse=True)
def own_modules() -> Iterator[None]:
    """What a test loads in this process is unloaded again."""
    modules, path = dict(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.path[:] = path


def test_a_file_of_the_model_directory_is_a_module_of_its_own_name(serve_handler: ServeHandler, tmp_path: Path) -> None:
    worker = serve_handler(NAMES)
    assert json.loads(worker.ask("x").text) == ["model", str(tmp_path / "0" / "model"), "Kept"]


SPAWN = """
import multiprocessing
from djl_python import Output

class Square:
    def __call__(self, number):
        return number * number

def handle(inputs):
    if inputs.is_empty():
        return None
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return Output().add_as_json(pool.map(Square(), [1, 2, 3]))
"""


def test_classes_of_a_handler_travel_to_spawned_processes(serve_handler: ServeHandler) -> None:
    assert json.loads(serve_handler(SPAWN).ask("x").text) == [1, 4, 9]


def test_the_file_is_executed_once(serve_handler: ServeHandler) -> None:
    worker = serve_handler("print('executed')\n" + NAMES)
    worker.initialise()
    worker.ask("x")
    worker.wait_for_line("executed")
    assert worker.lines.count("executed") == 1


def test_the_file_is_not_executed_before_the_first_request(serve_handler: ServeHandler) -> None:
    worker = serve_handler("raise RuntimeError('too early')")
    assert worker.process.poll() is None
    assert "too early" not in worker.output


def test_an_absolute_entry_point_is_module_model(tmp_path: Path) -> None:
    elsewhere = write_model(tmp_path / "elsewhere", NAMES, "handler.py") / "handler.py"
    (tmp_path / "empty").mkdir()
    with running_worker(tmp_path / "empty", tmp_path, entry_point=str(elsewhere)) as worker:
        assert json.loads(worker.ask("x").text)[0] == "model"


def test_a_file_in_a_folder_is_a_module_of_a_package(tmp_path: Path) -> None:
    model = tmp_path / "model"
    write_model(model / "deep", "from .names import handle\n", "handler.py")
    write_model(model / "deep", NAMES, "names.py")
    with running_worker(model, tmp_path, entry_point="deep/handler.py") as worker:
        assert json.loads(worker.ask("x").text)[0] == "deep.names"


def test_an_entry_point_without_py_is_an_importable_module(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", NAMES, "mymodule.py")
    with running_worker(model, tmp_path, entry_point="mymodule") as worker:
        assert json.loads(worker.ask("x").text)[0] == "mymodule"


def test_the_handler_property_chooses_the_function(serve_handler: ServeHandler) -> None:
    assert serve_handler(NAMES).ask("x", handler="other").text == "other"


def test_an_entry_point_that_imports_from_beside_itself_finds_it(tmp_path: Path) -> None:
    write_model(tmp_path, "VALUE = 7\n", "beside_the_handler.py")
    write_model(tmp_path, "from beside_the_handler import VALUE\n", "some_handler.py")
    assert load_module(str(tmp_path), "some_handler.py").VALUE == 7


def test_a_missing_file_says_where_it_was_looked_for_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no file .*/model\.py.*option\.entryPoint"):
        load_module(str(tmp_path), "model.py")


def test_a_missing_module_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'no_such_module' is neither.*PYTHONPATH"):
        load_module(str(tmp_path), "no_such_module")


def test_a_module_that_lacks_a_library_tells_of_the_library(tmp_path: Path) -> None:
    write_model(tmp_path, "import no_such_library\n", "importing.py")
    for entry_point in ("importing", "importing.py"):
        with pytest.raises(ModuleNotFoundError, match="no_such_library"):
            load_module(str(tmp_path), entry_point)


def test_a_file_named_like_a_module_in_use_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, NAMES, "json.py")
    with pytest.raises(ConfigurationError, match=r"'json'.*in use already.*rename the file"):
        load_module(str(tmp_path), "json.py")


def test_a_missing_function_names_the_ones_there_are(tmp_path: Path) -> None:
    write_model(tmp_path, NAMES)
    with pytest.raises(ConfigurationError, match=r"no function 'nope'.*its functions are: handle, other"):
        ModelService(str(tmp_path), "model.py").function("nope")


def test_a_name_that_is_no_function_is_missing(tmp_path: Path) -> None:
    write_model(tmp_path, "handle = 7\n")
    with pytest.raises(ConfigurationError, match=r"no function 'handle'.*: none"):
        ModelService(str(tmp_path), "model.py").function(None)


def test_a_file_that_failed_can_be_loaded_again(tmp_path: Path) -> None:
    service = ModelService(str(tmp_path), "model.py")
    write_model(tmp_path, "raise RuntimeError('once')")
    with pytest.raises(RuntimeError):
        service.function("handle")
    write_model(tmp_path, NAMES)
    assert service.function("handle").__name__ == "handle"


# --- the initialise call


def test_a_load_error_arrives_with_its_type_and_its_innermost_frames(serve_handler: ServeHandler) -> None:
    worker = serve_handler("def load():\n    raise ValueError('no weights')\n\nload()\n")
    answer = worker.initialise()
    assert (answer.head.code, answer.head.message) == (424, "prediction failure")
    error = error_of(answer.text)
    assert error.startswith("ValueError: no weights\n")
    assert 'model.py", line 2, in load' in error
    assert "Traceback" in worker.wait_for_line("Traceback")


def test_a_load_error_names_its_cause(serve_handler: ServeHandler) -> None:
    worker = serve_handler("try:\n    {}['k']\nexcept KeyError as error:\n    raise ValueError('outer') from error\n")
    assert "caused by KeyError: 'k'" in error_of(worker.initialise().text)


def test_a_syntax_error_arrives_with_its_line(serve_handler: ServeHandler) -> None:
    worker = serve_handler("def handle(inputs:\n    pass\n")
    error = error_of(worker.initialise().text)
    assert "SyntaxError" in error
    assert "def handle(inputs:" in error


def test_an_error_of_the_handlers_own_initialisation_arrives_alike(serve_handler: ServeHandler) -> None:
    worker = serve_handler("def handle(inputs):\n    raise ValueError('bad option')\n")
    assert "in handle" in error_of(worker.initialise().text)


def test_memory_that_runs_out_while_loading_is_507(serve_handler: ServeHandler) -> None:
    worker = serve_handler("raise MemoryError")
    answer = worker.initialise()
    assert (answer.head.code, answer.head.message) == (507, "out of memory")


def test_an_error_after_the_load_is_told_by_its_text_only(serve_handler: ServeHandler) -> None:
    source = "def handle(inputs):\n    if not inputs.is_empty():\n        raise ValueError('bad request')\n"
    worker = serve_handler(source)
    assert worker.initialise().head.code == 204
    assert error_of(worker.ask("x").text) == "bad request"
