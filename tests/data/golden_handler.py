"""The handler behind golden_frames.json: the body's ``op`` names what to answer."""

import json

from djl_python import Input, Output


def describe(inputs):
    return {
        "properties": {key: [value, type(value).__name__] for key, value in inputs.get_properties().items()},
        "content": {key: bytes(value).decode() for key, value in inputs.content},
        "keys": [repr(key) for key in inputs.content.keys],
        "function": inputs.get_function_name(),
        "is_empty": inputs.is_empty(),
        "is_batch": inputs.is_batch(),
        "batch_size": inputs.get_batch_size(),
    }


def answer_batch(inputs):
    output = Output()
    batches = inputs.get_batches()
    for index, item in enumerate(batches):
        record = {"i": index, "n": len(batches), "d": describe(item)}
        output.add(json.dumps(record), batch_index=index)
    return output


def tokens(fail_at=None):
    for index in range(3):
        if index == fail_at:
            raise RuntimeError("stream boom")
        yield f"tok{index}"


def stream(request):
    if request.get("raw"):
        return Output().add_stream_content(iter(["a ", "b ", "c"]), output_formatter=None)
    return Output().add_stream_content(tokens(request.get("fail_at")))


def numpy_list():
    import numpy

    return Output().add_property("content-type", "tensor/ndlist").add_as_numpy([numpy.ones((2, 3), "float32")])


def fail(error):
    raise error


OPERATIONS = {
    "add_str": lambda request: Output().add("plain é"),
    "add_bytes": lambda request: Output().add_property("Content-Type", "application/octet-stream").add(b"\x00\x01\xff"),
    "key": lambda request: Output().add("x", key="mykey"),
    "two": lambda request: Output().add("x", key="a").add("y", key="b"),
    "none": lambda request: None,
    "empty_output": lambda request: Output(),
    "raise": lambda request: fail(RuntimeError("boom é\nsecond line")),
    "raise_oom": lambda request: fail(MemoryError("no mem")),
    "nonoutput": lambda request: "text",
    "error": lambda request: Output().error("my error"),
    "props": lambda request: (
        Output().add_property("X-Custom", "v1").add_property("content-type", "text/x-custom").add("x")
    ),
    "nd": lambda request: numpy_list(),
    "stream": stream,
    "code": lambda request: Output(code=request["code"], message=request["message"]).add_as_json({"x": 1}),
    "json": lambda request: Output().add_as_json(request["value"]),
}


def handle(inputs: Input):
    if inputs.is_empty():
        return None
    if inputs.is_batch():
        return answer_batch(inputs)
    request = inputs.get_as_json()
    return OPERATIONS[request["op"]](request)


def other(inputs: Input):
    return Output().add("other:" + inputs.get_function_name())
