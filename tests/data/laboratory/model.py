"""A handler that does what the request's JSON document says, so that tests can see every side of the server."""

import json
import os
import time

from djl_python import Output


def handle(inputs):
    if inputs.is_empty():
        return None
    content = inputs.get_content()
    raw = bytes(inputs.get_as_bytes())
    try:
        order = json.loads(raw)
    except ValueError:
        order = {}
    kind = order.get("do", "report") if isinstance(order, dict) else "report"
    return ORDERS[kind](inputs, content, order)


def report(inputs, content, order):
    """What the handler sees."""
    parts = [[key, bytes(content.value_at(index)).decode("latin-1")] for index, key in enumerate(content.get_keys())]
    return (
        Output()
        .add_as_json({"properties": inputs.get_properties(), "content": parts})
        .add_property("content-type", "application/json")
    )


def answer(inputs, content, order):
    """Status, message, properties and body as ordered."""
    output = Output(order.get("code", 200), order.get("message", "OK"))
    for name, value in order.get("properties", {}).items():
        output.add_property(name, value)
    if order.get("body") is not None:
        output.add(order["body"])
    return output


def nothing(inputs, content, order):
    return None


def fail(inputs, content, order):
    raise ValueError(order["text"])


def wait(inputs, content, order):
    """Say that the request has arrived, then wait to be released."""
    signal(order["started"])
    wait_for(order["release"])
    return Output().add("released")


def stream(inputs, content, order):
    """``lines`` lines; after the first one perhaps a wait, at the end perhaps a failure or endless lines."""
    output = Output()
    if order.get("content_type"):
        output.add_property("content-type", order["content_type"])
    output.add_stream_content(lines(order), output_formatter=None)
    return output


def lines(order):
    try:
        for number in range(order.get("lines", 3)):
            yield order.get("line", "line {}\n").format(number).encode()
            if number == 0 and "release" in order:
                wait_for(order["release"])
        if "fail" in order:
            raise ValueError(order["fail"])
        while "flood" in order:
            yield b"x" * order["flood"]
        while order.get("endless"):
            yield b"more\n"
            time.sleep(0.01)
    finally:
        if "ended" in order:
            signal(order["ended"])


def signal(path):
    with open(path, "w"):
        pass


def wait_for(path):
    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.01)


ORDERS = {f.__name__: f for f in (report, answer, nothing, fail, wait, stream)}
