"""The base class of a rolling batch: it keeps the requests that are active, a subclass makes the tokens."""

from __future__ import annotations

import functools
import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from djl_python.request import Request
from djl_python.request_io import Token

__all__ = [
    "FINISH_REASON_MAPPER",
    "IdCounter",
    "RollingBatch",
    "Token",
    "filter_unused_generation_params",
    "stop_on_any_exception",
]

logger = logging.getLogger("djl_python.rolling_batch")

FINISH_REASON_MAPPER = ["length", "eos_token", "stop_sequence"]
Step = Callable[..., list[dict[str, Any]]]


class IdCounter:
    """Numbers for requests, from 0."""

    def __init__(self) -> None:
        self.reset()

    def next_id(self) -> int:
        """The next number."""
        return next(self._numbers)

    def reset(self) -> None:
        """Begin with 0 again."""
        self._numbers = itertools.count()


class RollingBatch(ABC):
    """``configs`` are the handler's settings, of whatever type it likes."""

    def __init__(self, configs: Any = None, **_: Any) -> None:
        self.configs = configs
        self.active_requests: list[Request] = []
        self.req_id_counter = IdCounter()

    @abstractmethod
    def inference(self, new_requests: list[Request]) -> list[dict[str, Any]]:
        """Compute one step for ``new_requests`` and those that are running; ``postprocess_results()`` is the result."""

    def preprocess_requests(self, requests: list[Request]) -> Any:
        """Make what the subclass's engine wants of requests."""
        raise NotImplementedError(f"{type(self).__name__} has no preprocess_requests")

    def get_tokenizer(self) -> Any:
        """The tokenizer of the model."""
        raise NotImplementedError(f"{type(self).__name__} has no tokenizer")

    def get_new_requests(self, requests: list[Request]) -> list[Request]:
        """Admit requests, which are new, and return them."""
        self.active_requests += requests
        return requests

    def postprocess_results(self) -> list[dict[str, Any]]:
        """What every active request has for its client since the last call; those that are complete leave."""
        results = [_result(request) for request in self.active_requests]
        self.active_requests = [request for request in self.active_requests if not request.is_last_token()]
        if not self.active_requests:
            self.req_id_counter.reset()
        return results

    def reset(self) -> None:
        """Forget every request: the server has told their clients already."""
        self.active_requests = []
        self.req_id_counter.reset()


def _result(request: Request) -> dict[str, Any]:
    seen = len(request.request_output.sequences[request.request_output.best_sequence_index].tokens)
    result: dict[str, Any] = {
        "data": request.get_next_token(),
        "last": request.is_last_token(),
        "content_type": request.get_content_type(),
        "step_token_num": seen - request.counted_tokens,
        "request_id": request.id,
    }
    request.counted_tokens = seen
    request.reset_next_token()
    return result


def stop_on_any_exception(function: Step) -> Step:
    """For ``inference``: an exception ends every active request with its text, and the batch begins anew."""

    @functools.wraps(function)
    def guarded(self: RollingBatch, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        try:
            return function(self, *args, **kwargs)
        except Exception as error:
            logger.exception("a step of the rolling batch failed")
            for request in self.active_requests:
                token = Token(-1, "", log_prob=-1.0, special_token=True, error_msg=str(error))
                request.set_next_token(token, last_token=True, finish_reason="error")
            results = self.postprocess_results()
            self.reset()
            return results

    return guarded


def filter_unused_generation_params(
    parameters: dict[str, Any], allowed_params: set[str], backend: str, remove_unused_params: bool = False
) -> dict[str, Any]:
    """Warn of parameters that ``backend`` does not know, and take them out when told so."""
    if unused := sorted(set(parameters) - allowed_params):
        logger.warning("%s does not know the parameters %s; it knows %s", backend, unused, sorted(allowed_params))
        for name in unused if remove_unused_params else ():
            del parameters[name]
    return parameters
