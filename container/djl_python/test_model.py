"""Runs a handler without a server: in a test, in a notebook, or by ``python -m djl_python.test_model --model-dir DIR``.

handler = TestHandler("model.py", "path/of/the/model/directory")
output = handler.inference(create_json_request({"inputs": "To be"}))
print(extract_output_as_json(output))
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from bloomery.protocol.frames import decode_bytes, decode_pairs
from bloomery.settings import properties as properties_file
from djl_python.inputs import Input
from djl_python.invocation import checked
from djl_python.json_encoding import encode_json
from djl_python.np_util import to_nd_list
from djl_python.outputs import Output
from djl_python.service_loader import ModelService

_CONTENT_TYPES = {
    ".json": "application/json",
    ".txt": "text/plain",
    ".csv": "text/csv",
    ".gif": "image/gif",
    ".png": "image/png",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".ndlist": "tensor/ndlist",
    ".npz": "tensor/npz",
}


class TestHandler:
    """A handler in this process. ``entry_point`` is a file of ``model_dir``, a module's name, or a module.

    ``serving_properties`` holds the options of ``model_dir``'s serving.properties and of OPTION_ variables, as the
    handler receives them at load time. The first ``inference`` makes the initialise call, unless it is one itself.
    """

    __test__ = False  # pytest takes a class of this name for a set of tests

    def __init__(self, entry_point: str | ModuleType, model_dir: str | None = None) -> None:
        directory = os.path.abspath(model_dir or ".")
        self.serving_properties = {**_option_variables(), **load_properties(model_dir)}
        self._own = {"device_id": "-1", "model_dir": directory}
        if model_dir:
            os.chdir(directory)  # where a worker process runs
        self.service = ModelService(directory, entry_point)

    def initialise(self, properties: Mapping[str, Any] | None = None) -> Output:
        """Make the initialise call: ``serving_properties`` and ``properties``, no content."""
        inputs = Input()
        inputs.properties = {**self.serving_properties, **(properties or {})}
        return self._call(inputs)

    def inference(self, inputs: Input) -> Output:
        """Call the handler. What it raises is raised here; None becomes a 204, as a server makes of it."""
        if not inputs.is_empty() and not self.service.initialised:
            loaded = self.initialise()
            if loaded.code >= 300:
                return loaded
        return self._call(inputs)

    def inference_batch(
        self,
        inputs: Sequence[Any],
        properties: Sequence[Mapping[str, Any]] | None = None,
        serving_properties: Mapping[str, Any] | None = None,
    ) -> Output:
        """Call the handler with several bodies that were joined into one request."""
        shared = self.serving_properties if serving_properties is None else serving_properties
        return self.inference(create_concurrent_batch_request(inputs, properties, shared))

    def inference_rolling_batch(
        self,
        inputs: Sequence[Any],
        properties: Sequence[Mapping[str, Any]] | None = None,
        serving_properties: Mapping[str, Any] | None = None,
    ) -> dict[int, str]:
        """Drive a handler of the rolling batch protocol until every request is complete; the text of each.

        As a server does, the second and later calls send no content for the requests that are running.
        """
        texts = dict.fromkeys(range(len(inputs)), "")
        running = list(texts)
        bodies: Sequence[Any] = inputs
        while running:
            output = self.inference_batch(bodies, properties, serving_properties)
            if output.code >= 300 or output.content.size() != len(running):
                raise RuntimeError(f"{len(running)} requests are running, and the handler answers {output}")
            steps = [decode_encoded_output_binary(value) for value in output.content.values]
            for request, step in zip(running, steps, strict=True):
                texts[request] += step["data"]
            running = [request for request, step in zip(running, steps, strict=True) if step["last"].lower() != "true"]
            bodies, properties = [b""] * len(running), None
        return texts

    def _call(self, inputs: Input) -> Output:
        inputs.properties.update(self._own)
        initialises = self.service.initialises(inputs)
        output = checked(self.service.function(inputs.function_name)(inputs))
        if initialises:
            self.service.finish_initialising(output.code)
        return output


# --- requests


def create_request(input_files: Iterable[str], parameters: Iterable[str] | None = None) -> Input:
    """A request of files (or texts), each ``[key=]file``, and properties ``name=value``, as on the command line."""
    request = _request()
    for parameter in parameters or ():
        name, separator, value = parameter.partition("=")
        if not separator:
            raise ValueError(f"Invalid model parameter: {parameter!r}; it must be of the form name=value")
        request.properties[name] = value
    for given in input_files:
        _add_file(request, given)
    return request


def _add_file(request: Input, given: str) -> None:
    head, separator, tail = given.partition("=")
    key, name = (head, tail) if separator and head.isidentifier() else (None, given)
    if os.path.exists(name):
        data, kind = Path(name).read_bytes(), _CONTENT_TYPES.get(Path(name).suffix.lower())
    else:
        data, kind = name.encode(), "application/json" if name.lstrip().startswith(("{", "[")) else "text/plain"
    if kind and (request.is_empty() or key == "data"):
        request.properties["content-type"] = kind
    request.content.add(key, bytearray(data))


def create_text_request(text: str, key: str | None = None) -> Input:
    """A text/plain request."""
    return _request("text/plain", text.encode(), key)


def create_json_request(value: Any, key: str | None = None) -> Input:
    """An application/json request."""
    return _request("application/json", encode_json(value), key)


def create_image_request(image: Any, key: str | None = None) -> Input:
    """A request of a ``PIL.Image`` as PNG, or of the file of that name."""
    if isinstance(image, (str, os.PathLike)):
        path = Path(image)
        return _request(_CONTENT_TYPES.get(path.suffix.lower(), "image/*"), path.read_bytes(), key)
    file = io.BytesIO()
    image.save(file, "PNG")
    return _request("image/png", file.getvalue(), key)


def create_numpy_request(arrays: Any, key: str | None = None) -> Input:
    """A tensor/ndlist request of one array or of a list of arrays."""
    return _request("tensor/ndlist", to_nd_list(arrays), key)


def create_npz_request(arrays: Any, key: str | None = None) -> Input:
    """A tensor/npz request of one array or of a list of arrays."""
    output = Output().add_as_npz(arrays)
    return _request("tensor/npz", output.content.value_at(0), key)


def create_concurrent_batch_request(
    inputs: Sequence[Any],
    properties: Sequence[Mapping[str, Any]] | None = None,
    serving_properties: Mapping[str, Any] | None = None,
) -> Input:
    """Several bodies joined into one request, as a server joins them; bytes stay as they are, anything else is JSON."""
    request = Input()
    request.properties = {**(serving_properties or {}), "batch_size": len(inputs)}
    request.function_name = request.properties.get("handler")
    for index, own in enumerate(properties or ()):
        request.properties |= {f"batch_{index:03}.{name}": value for name, value in own.items()}
    for index, body in enumerate(inputs):
        data = body if isinstance(body, (bytes, bytearray)) else encode_json(body)
        request.content.add(f"batch_{index:03}.data", bytearray(data))
    return request


def _request(content_type: str | None = None, data: bytes | None = None, key: str | None = None) -> Input:
    request = Input()
    request.properties["device_id"] = "-1"
    if content_type is not None:
        request.properties["content-type"] = content_type
    if data is not None:
        request.content.add(key, bytearray(data))
    return request


# --- answers


def extract_output_as_input(outputs: Output) -> Input:
    """The answer as something to be read with the methods of Input."""
    inputs = Input()
    inputs.properties, inputs.content = outputs.properties, outputs.content
    return inputs


def extract_output_as_bytes(outputs: Output, key: str | None = None) -> Any:
    """The answer's body."""
    return extract_output_as_input(outputs).get_as_bytes(key)


def extract_output_as_string(outputs: Output, key: str | None = None) -> Any:
    """The answer's body as text."""
    return extract_output_as_input(outputs).get_as_string(key)


def extract_output_as_json(outputs: Output, key: str | None = None) -> Any:
    """The answer's body as parsed JSON."""
    return extract_output_as_input(outputs).get_as_json(key)


def extract_output_as_numpy(outputs: Output, key: str | None = None) -> Any:
    """The answer's arrays."""
    return extract_output_as_input(outputs).get_as_numpy(key)


def extract_output_as_npz(outputs: Output, key: str | None = None) -> Any:
    """The answer's arrays, from an .npz file."""
    return extract_output_as_input(outputs).get_as_npz(key)


def decode_encoded_output_binary(binary: bytes | bytearray) -> dict[str, str]:
    """What ``Output.binary_encode`` wrote."""
    return decode_bytes(decode_pairs(Output.dialect), bytes(binary))[0]


# --- settings and the command line


def load_properties(properties_dir: str | None) -> dict[str, str]:
    """The serving.properties of a directory as a handler receives them: without the ``option.``."""
    path = Path(properties_dir, "serving.properties") if properties_dir else None
    if path is None or not path.is_file():
        return {}
    return {name.removeprefix("option."): found.text for name, found in properties_file.read(path).items()}


def _option_variables() -> dict[str, str]:
    options = {name[7:].lower(): value for name, value in os.environ.items() if name.startswith("OPTION_")}
    if "entrypoint" in options:
        options["entryPoint"] = options.pop("entrypoint")
    return options


def run(arguments: Sequence[str] | None = None) -> int:
    """The command line: call the handler once and print its answer. The exit code is 0 for a status below 300."""
    parser = argparse.ArgumentParser(prog="djl_python.test_model", description="Call a handler once, without a server")
    parser.add_argument("--model-dir", default=".", help="model directory")
    parser.add_argument("--entry-point", default="model.py", help="file of the model directory, or module")
    parser.add_argument("--handler", default="handle", help="function to call")
    parser.add_argument("--input", nargs="+", default=["input.txt"], help="[key=]file, or a text that is no file")
    parser.add_argument("--parameters", nargs="+", help="properties of the request: name=value")
    options = parser.parse_args(arguments)
    # Before the handler's directory becomes the current one, from which relative names would be meant.
    request = create_request(options.input, options.parameters)
    request.function_name = options.handler
    output = TestHandler(options.entry_point, options.model_dir).inference(request)
    print(output, flush=True)  # before what goes past the text layer
    for value in output.content.values:
        sys.stdout.buffer.write(bytes(value) + b"\n")
    for item in output.stream_content or ():
        print(item)
    return 0 if output.code < 300 else 1


if __name__ == "__main__":
    sys.exit(run())
