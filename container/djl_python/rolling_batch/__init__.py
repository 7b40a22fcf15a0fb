"""For handlers that speak the rolling batch protocol themselves (``option.rolling_batch`` with a model.py).

The server calls such a handler once per step, with all requests that are active: new ones with their properties and
content, running ones, in the same order before them, with empty content. The handler answers one entry per request.
"""

from __future__ import annotations

from djl_python.rolling_batch.rolling_batch import RollingBatch, stop_on_any_exception
from djl_python.rolling_batch.step import rolling_batch_inference

__all__ = ["RollingBatch", "rolling_batch_inference", "stop_on_any_exception"]
