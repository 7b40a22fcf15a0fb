"""Content negotiation for handlers: from a request's Content-Type to a value, and from a prediction to an answer."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from djl_python.inputs import Input
from djl_python.libraries import needed
from djl_python.outputs import Output

# A CSV file of texts says by its header what its columns are.
TEXT_COLUMNS = ("question", "context", "inputs")


def decode(inputs: Input, content_type: str | None, key: str | None = None, require_csv_headers: bool = True) -> Any:
    """What the request says in ``content_type``: JSON as it is, anything else as ``{"inputs": value}``.

    Without a content type the body is JSON, and an empty one is ``{"inputs": ""}``. ``require_csv_headers=False``
    reads CSV as an array of numbers.
    """
    kind = (content_type or "").lower()
    if not kind:
        return inputs.get_as_json(key) if inputs.get_as_bytes(key) else {"inputs": ""}
    if "application/json" in kind:
        return inputs.get_as_json(key)
    if "text/csv" in kind:
        return decode_csv(inputs, require_csv_headers, key)
    if "text/plain" in kind:
        return {"inputs": [inputs.get_as_string(key)]}
    if kind.startswith("image/"):
        return {"inputs": inputs.get_as_image(key)}
    if kind.startswith("tensor/npz"):
        return {"inputs": inputs.get_as_npz(key)}
    if kind.startswith(("tensor/ndlist", "application/x-npy")):
        return {"inputs": inputs.get_as_numpy(key)}
    if kind.startswith("application/x-www-form-urlencoded"):
        return {"inputs": inputs.get_as_string(key)}
    return {"inputs": inputs.get_as_bytes(key)}  # audio, and what nobody knows


def decode_csv(inputs: Input, require_headers: bool = True, key: str | None = None) -> Any:
    """``{"inputs": [text, ...]}`` of a column called inputs, else ``{"inputs": [row, ...]}``; without headers an array
    of numbers."""
    text = inputs.get_as_string(key) or ""
    if not require_headers:
        return _numbers(text)
    header = text.splitlines()[0].lower() if text else ""
    if not any(column in header for column in TEXT_COLUMNS):
        raise ValueError(f"the CSV begins with {header[:80]!r}: its first line must name {', '.join(TEXT_COLUMNS)}")
    rows = list(csv.DictReader(io.StringIO(text)))
    if rows and "inputs" in rows[0]:
        return {"inputs": [row["inputs"] for row in rows]}
    return {"inputs": rows}


def _numbers(text: str) -> Any:
    np = needed("numpy", "a CSV file without headers")
    array = np.genfromtxt(io.StringIO(text), delimiter=",")
    if np.isnan(array).any():
        raise ValueError("the CSV has cells that are no numbers; without headers all of them must be")
    return array


def encode(outputs: Output, prediction: Any, content_type: str | None, key: str | None = None) -> None:
    """Add ``prediction`` to ``outputs`` in the form that ``content_type`` names, and set the answer's Content-Type.

    JSON without one; bytes go out as they are under the name that was asked for; what has no form of its own is NDList.
    """
    kind = (content_type or "").lower()
    if not kind or "application/json" in kind or "*/*" in kind:
        outputs.add_as_json(prediction, key).add_property("Content-Type", "application/json")
    elif "text/csv" in kind:
        outputs.add_as_string(encode_csv(prediction), key).add_property("Content-Type", "text/csv")
    elif "text/plain" in kind and isinstance(prediction, str):
        outputs.add_as_string(prediction, key).add_property("Content-Type", "text/plain")
    elif "tensor/npz" in kind:
        outputs.add_as_npz(prediction, key).add_property("Content-Type", "tensor/npz")
    elif isinstance(prediction, (bytes, bytearray)):
        outputs.add(prediction, key).add_property("Content-Type", content_type)
    else:
        outputs.add_as_numpy(prediction, key).add_property("Content-Type", "tensor/ndlist")


def encode_csv(content: Iterable[Any]) -> str:
    """A header and a line per mapping; a line per sequence or number."""
    rows = list(content)
    file = io.StringIO()
    if rows and isinstance(rows[0], Mapping):
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    else:
        csv.writer(file).writerows(row if isinstance(row, (list, tuple)) else [row] for row in rows)
    return file.getvalue()
