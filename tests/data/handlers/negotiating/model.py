"""Decodes what comes by its Content-Type, and encodes what goes by Accept."""

from djl_python import Input, Output
from djl_python.encode_decode import decode, encode


def handle(inputs: Input) -> Output:
    if inputs.is_empty():
        return None
    content_type = inputs.get_property("Content-Type")
    accept = inputs.get_property("Accept")
    if not accept or accept == "*/*":
        accept = content_type if content_type and content_type.startswith("tensor/") else "application/json"
    values = decode(inputs, content_type)["inputs"]
    outputs = Output()
    if accept.startswith("tensor/"):
        encode(outputs, [array * 2 for array in values], accept)
    elif accept == "text/csv":
        encode(outputs, [{"text": value, "length": len(value)} for value in values], accept)
    else:
        encode(outputs, values, accept)
    return outputs
