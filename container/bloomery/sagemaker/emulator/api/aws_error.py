"""Errors in AWS's terms: what a client of the emulator sees as a botocore ``ClientError``."""

from __future__ import annotations

import json
import uuid

from aiohttp import web

from bloomery.errors import BloomeryError


class AwsError(BloomeryError):
    """Refuses a call. ``code`` is the exception's name on AWS, the text its message."""

    def __init__(self, message: str, code: str = "ValidationException", status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


def answer(document: object, status: int = 200) -> web.Response:
    """``document`` as AWS's JSON protocol 1.1 answers."""
    return web.Response(
        status=status,
        body=json.dumps(document).encode(),
        headers={"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": str(uuid.uuid4())},
    )


def answer_error(error: AwsError) -> web.Response:
    """The error document of the JSON protocol 1.1."""
    return answer({"__type": error.code, "message": str(error)}, error.status)
