"""Answers and errors as S3 shapes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.sax.saxutils import escape

Tree = str | int | list["tuple[str, Tree]"]
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass
class Answer:
    """What is sent: ``body``, or ``length`` bytes of ``file`` from ``start``. Who sends it closes the file."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: BinaryIO | None = None
    start: int = 0
    length: int = 0


class S3Error(Exception):
    """A refusal in S3's words."""

    def __init__(self, status: int, code: str, message: str = "", **headers: str) -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message or code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(self, resource: str) -> Answer:
        """S3 says the region in a header and in the body."""
        region = self.headers.get("x-amz-bucket-region")
        tree: list[tuple[str, Tree]] = [("Code", self.code), ("Message", self.message), ("Resource", resource)]
        tree += [("Region", region)] if region else []
        return Answer(self.status, dict(self.headers), xml("Error", tree, namespace=False))


def xml(root: str, children: Iterable[tuple[str, Tree]], *, namespace: bool = True) -> bytes:
    """A document of nested elements."""
    attribute = f' xmlns="{_NAMESPACE}"' if namespace else ""
    inner = "".join(_element(name, value) for name, value in children)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}{attribute}>{inner}</{root}>'.encode()


def _element(name: str, value: Tree) -> str:
    if isinstance(value, list):
        return f"<{name}>{''.join(_element(*child) for child in value)}</{name}>"
    return f"<{name}>{escape(str(value))}</{name}>"
