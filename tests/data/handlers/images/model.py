"""Reads an image part and a form field of one request, and returns an image."""

import io

from djl_python.inputs import Input
from djl_python.outputs import Output


def handle(inputs: Input) -> Output:
    if inputs.is_empty():
        return None
    try:
        image = inputs.get_as_image("image") if inputs.contains_key("image") else inputs.get_as_image()
        size = int(inputs.get_as_string("size")) if inputs.contains_key("size") else 8
    except Exception as e:
        return Output().error(f"not an image: {e}", code=400, message="Bad image")
    image.thumbnail((size, size))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return Output().add_property("Content-Type", "image/png").add(file.getvalue())
