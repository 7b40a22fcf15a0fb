"""Finds a model.py's marked functions, and makes a handler of them when the file has none of its own.

With a formatter the built-in handler answers, and the formatters see what goes in and what comes out. With functions
that load and predict (marked, or under SageMaker's names ``model_fn``, ``input_fn``, ``predict_fn``, ``output_fn``)
these are the handler.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from bloomery.errors import ConfigurationError
from djl_python.encode_decode import decode, encode
from djl_python.inputs import Input
from djl_python.outputs import Output

Handler = Callable[[Input], Any]


@dataclass(frozen=True)
class CustomCode:
    """The functions of one model.py, None where it has none. ``sagemaker``: they have SageMaker's signatures."""

    input_formatter: Callable[..., Any] | None = None
    output_formatter: Callable[..., Any] | None = None
    init_handler: Callable[..., Any] | None = None
    prediction_handler: Callable[..., Any] | None = None
    sagemaker: bool = False

    @classmethod
    def of(cls, module: ModuleType) -> CustomCode:
        """What ``module`` has; SageMaker's names count only where nothing is marked."""
        marked = cls(
            _marked(module, "is_input_formatter"),
            _marked(module, "is_output_formatter"),
            _marked(module, "is_init_handler"),
            _marked(module, "is_prediction_handler"),
        )
        if marked != cls():
            return marked
        named = cls(
            _named(module, "input_fn"),
            _named(module, "output_fn"),
            _named(module, "model_fn"),
            _named(module, "predict_fn"),
        )
        return replace(named, sagemaker=named != cls())

    @property
    def formatters(self) -> dict[str, Callable[..., Any]]:
        """The marked formatters by the properties under which a handler of the file's own receives them."""
        found = {"input_formatter": self.input_formatter, "output_formatter": self.output_formatter}
        return {name: value for name, value in found.items() if value is not None and not self.sagemaker}

    @property
    def predicts(self) -> bool:
        """Whether these functions load a model, or predict, by themselves."""
        return self.init_handler is not None or self.prediction_handler is not None or self.sagemaker


def _marked(module: ModuleType, mark: str) -> Callable[..., Any] | None:
    found = (value for value in vars(module).values() if callable(value) and getattr(value, mark, False) is True)
    return next(found, None)


def _named(module: ModuleType, name: str) -> Callable[..., Any] | None:
    found = getattr(module, name, None)
    return found if callable(found) else None


def script_handler(code: CustomCode, model_dir: str) -> Handler:
    """A handler that loads and predicts with ``code``; what it lacks has the defaults of SageMaker's toolkits."""
    load = code.init_handler
    if load is None:
        raise ConfigurationError(
            "model.py predicts, and nothing in it loads the model: add model_fn(model_dir) or a function marked "
            "@init_handler, or write handle(inputs)"
        )
    model: Any = None

    def handle(inputs: Input) -> Output | None:
        nonlocal model
        if inputs.is_empty():
            model = load(model_dir)
            return None
        if not inputs.is_batch():
            return _predict(code, model, inputs)
        return in_turn(inputs, lambda item: _predict(code, model, item))

    return handle


def _predict(code: CustomCode, model: Any, inputs: Input) -> Output:
    content_type, accept = inputs.get_property("content-type"), inputs.get_property("accept")
    if code.input_formatter is None:
        data = decode(inputs, content_type, require_csv_headers=False)
        data = data["inputs"] if isinstance(data, dict) and set(data) == {"inputs"} else data
    elif code.sagemaker:
        data = code.input_formatter(bytes(inputs.get_as_bytes() or b""), content_type)
    else:
        data = code.input_formatter(inputs, content_type=content_type, model=model)
    predict = code.prediction_handler or (lambda data, model: model.predict(data))
    prediction = predict(data, model)
    if code.output_formatter is None:
        output = Output()
        encode(output, prediction if accept and "csv" in accept else {"predictions": prediction}, accept)
        return output
    if code.sagemaker:
        return _answered(code.output_formatter(prediction, accept or "application/json"), accept)
    return _answered(code.output_formatter(prediction), accept)


def _answered(result: Any, accept: str | None) -> Output:
    """An Output as it is; SageMaker's body, or pair of body and content type, as one."""
    if isinstance(result, Output):
        return result
    body, content_type = result if isinstance(result, tuple) and len(result) == 2 else (result, accept)
    output = Output().add(body)
    if content_type and "*" not in content_type:
        output.add_property("Content-Type", content_type)
    elif not isinstance(body, (str, bytes, bytearray)):
        output.add_property("Content-Type", "application/json")
    return output


def in_turn(inputs: Input, answer: Callable[[Input], Output]) -> Output:
    """The requests that were joined into ``inputs``, answered one by one; the first that fails is the answer of all,
    because joined answers share one status."""
    joined = Output()
    for index, item in enumerate(inputs.get_batches()):
        item.properties |= {name: inputs.properties[name] for name in _OWN if name in inputs.properties}
        output = answer(item)
        if output.code >= 300 or output.stream_content is not None:
            return output
        joined.properties |= output.properties
        joined.add(output.content.value_at(0) if output.content.size() else b"", batch_index=index)
    return joined


_OWN = ("device_id", "model_dir", "tensor_parallel_degree")  # what the worker adds to a request, and to no item of it


def accepts(function: Callable[..., Any], types: tuple[type, ...], names: tuple[str, ...] = ()) -> bool:
    """Whether the first parameter is annotated with one of ``types``, or, without annotation, has one of ``names``."""
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is None:
        raise ConfigurationError(f"{function.__name__} takes no argument; a formatter takes what it formats")
    if first.annotation is inspect.Parameter.empty:
        return first.name in names
    wanted = {kind.__name__ for kind in types}
    annotation = first.annotation if isinstance(first.annotation, str) else getattr(first.annotation, "__name__", "")
    return annotation.rpartition(".")[2] in wanted
