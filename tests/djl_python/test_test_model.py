"""TestHandler and its helpers: a handler without a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from tests.support.worker_client import write_model

from djl_python import Output
from djl_python import test_model as tm
from djl_python.test_model import TestHandler

CONTAINER = Path(__file__).parents[2] / "container"

HANDLER = """
import os
from djl_python import Output

loaded = []

def handle(inputs):
    if inputs.is_empty():
        loaded.append(inputs.get_properties())
        return None
    if inputs.is_batch():
        output = Output()
        for index, item in enumerate(inputs.get_batches()):
            output.add(item.get_as_json()["inputs"] + "!" + str(item.get_property("n")), batch_index=index)
        return output
    return Output().add_as_json({"loaded": loaded, "cwd": os.getcwd(), "data": inputs.get_as_string()})

def spell(inputs):
    output = Output()
    for index, item in enumerate(inputs.get_batches()):
        if item.get_as_bytes():
            running.append(list(item.get_as_json()["inputs"]))
    for index, letters in enumerate(running):
        step = {"data": letters.pop(0), "last": not letters, "step_token_num": 1}
        output.add(Output.binary_encode(step), batch_index=index)
    running[:] = [letters for letters in running if letters]
    return output

running = []

def nothing(inputs):
    return Output()
"""


@pytest.fixture(autouse=True)
def own_process_state() -> Iterator[None]:
    """TestHandler changes what belongs to the process: put it back."""
    modules, path, cwd = dict(sys.modules), list(sys.path), os.getcwd()
    yield
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.path[:] = path
    os.chdir(cwd)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    directory = write_model(tmp_path / "model", HANDLER)
    (directory / "serving.properties").write_text("engine=Python\n# a comment\noption.model_id = here\n")
    return directory


def test_a_handler_is_initialised_and_called_in_its_directory(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTION_DTYPE", "fp16")
    monkeypatch.setenv("OPTION_MODEL_ID", "elsewhere")
    output = TestHandler("model.py", str(model_dir)).inference(tm.create_text_request("hello"))
    answer = tm.extract_output_as_json(output)
    assert (answer["data"], answer["cwd"]) == ("hello", str(model_dir))
    (properties,) = answer["loaded"]
    own = {"device_id": "-1", "model_dir": str(model_dir)}
    assert {"engine": "Python", "model_id": "here", "dtype": "fp16", **own}.items() <= properties.items()


def test_a_module_can_be_a_handler() -> None:
    module = ModuleType("mine")
    module.handle = lambda inputs: None if inputs.is_empty() else Output().add("x")  # type: ignore[attr-defined]
    assert tm.extract_output_as_string(TestHandler(module).inference(tm.create_text_request(""))) == "x"


def test_what_a_handler_raises_is_raised() -> None:
    module = ModuleType("mine")
    module.handle = lambda inputs: None if inputs.is_empty() else 1 / 0  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        TestHandler(module).inference(tm.create_text_request("x"))


def test_a_failed_load_is_the_answer() -> None:
    module = ModuleType("mine")
    module.handle = lambda inputs: Output().error("no weights")  # type: ignore[attr-defined]
    assert TestHandler(module).inference(tm.create_text_request("x")).code == 424


def test_several_bodies_are_joined(model_dir: Path) -> None:
    handler = TestHandler("model.py", str(model_dir))
    output = handler.inference_batch([{"inputs": "a"}, {"inputs": "b"}], [{"n": 1}, {"n": 2}])
    assert [bytes(value) for value in output.content.values] == [b"a!1", b"b!2"]


def test_a_rolling_batch_is_driven_to_its_end(model_dir: Path) -> None:
    handler = TestHandler("model.py", str(model_dir))
    texts = handler.inference_rolling_batch(
        [{"inputs": "abc"}, {"inputs": "d"}], serving_properties={"handler": "spell"}
    )
    assert texts == {0: "abc", 1: "d"}


def test_a_rolling_batch_that_answers_too_little_is_an_error(model_dir: Path) -> None:
    handler = TestHandler("model.py", str(model_dir))
    with pytest.raises(RuntimeError, match="1 requests are running"):
        handler.inference_rolling_batch([{"inputs": "x"}], serving_properties={"handler": "nothing"})


def test_requests_of_every_kind() -> None:
    array = np.ones((2, 2), np.float32)
    assert tm.create_json_request({"a": 1}).get_data() == {"a": 1}
    assert tm.create_text_request("é", key="k").get_data("k") == "é"
    np.testing.assert_array_equal((tm.create_numpy_request([array]).get_data() or [])[0], array)
    np.testing.assert_array_equal((tm.create_npz_request([array]).get_data() or [])[0], array)
    assert tm.create_image_request(Image.new("RGB", (3, 2))).get_data().size == (3, 2)


def test_answers_of_every_kind() -> None:
    array = np.ones((2, 2), np.float32)
    assert tm.extract_output_as_string(Output().add("é")) == "é"
    assert bytes(tm.extract_output_as_bytes(Output().add(b"\0", key="k"), "k")) == b"\0"
    np.testing.assert_array_equal(tm.extract_output_as_numpy(Output().add_as_numpy([array]))[0], array)
    np.testing.assert_array_equal(tm.extract_output_as_npz(Output().add_as_npz([array]))[0], array)


def test_a_request_is_made_of_files_and_texts(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    request = tm.create_request([f"data={tmp_path / 'a.json'}", "some text"], ["name=a=b"])
    assert request.get_as_json() == [1]
    assert request.get_property("content-type") == "application/json"
    assert bytes(request.get_content().value_at(1)) == b"some text"
    assert request.get_property("name") == "a=b"


def test_a_parameter_without_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid model parameter: 'name'"):
        tm.create_request(["x"], ["name"])


def test_the_command_line_calls_a_handler(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text("from a file")
    result = subprocess.run(
        [sys.executable, "-m", "djl_python.test_model", "--model-dir", str(model_dir), "--parameters", "a=b"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CONTAINER)},
        capture_output=True,
        text=True,
        check=True,
    )
    head, _, body = result.stdout.partition("{\n")
    assert head.startswith("200 OK")
    assert json.loads("{" + body)["data"] == "from a file"
