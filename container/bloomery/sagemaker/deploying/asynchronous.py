"""An invocation that waits in SageMaker's queue, and whose answer comes to S3."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bloomery.errors import AccessError, CallError, InvocationError
from bloomery.sagemaker.session import Session

_PAUSE = {"aws": 1.0, "local": 0.1}  # seconds between two looks
_ABSENT = ("NoSuchKey", "404", "NotFound")


@dataclass(frozen=True)
class AsyncInvocation:
    """``output``, ``failure``: where one of the two will be. ``since``: seconds since 1970."""

    session: Session
    endpoint: str
    inference_id: str
    output: str
    failure: str | None
    since: float

    def done(self) -> bool:
        """Whether there is an answer, or a failure."""
        return self._read(self.output) is not None or bool(self.failure and self._read(self.failure) is not None)

    def result(self, timeout: float = 900.0) -> bytes:
        """The answer, once it is there. Raises InvocationError when it failed, or is not there within ``timeout`` s."""
        end = time.monotonic() + timeout
        while True:
            answer = self._read(self.output)
            if answer is not None:
                return answer
            told = self._read(self.failure) if self.failure else None
            if told is not None:
                text = told.decode(errors="replace")
                raise InvocationError(
                    f"the invocation {self.inference_id} of endpoint {self.endpoint} failed: {text}", answer=text
                )
            if time.monotonic() > end:
                raise InvocationError(
                    f"no answer that we may read at {self.output} within {timeout:g} s, and no failure: "
                    f"`bloomery status {self.endpoint}` tells whether anything serves it"
                )
            time.sleep(_PAUSE[self.session.target])

    def _read(self, uri: str) -> bytes | None:
        """None when it is not there."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            with self.session.call("s3", "GetObject", Bucket=bucket, Key=key)["Body"] as body:
                return bytes(body.read())
        except CallError as error:
            # To those who may not list the bucket S3 says of what is not there that it is denied.
            if error.code in _ABSENT or isinstance(error, AccessError):
                return None
            raise
