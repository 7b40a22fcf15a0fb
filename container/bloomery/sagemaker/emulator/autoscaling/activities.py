"""What the scaler did, in Application Auto Scaling's words."""

from __future__ import annotations

import time
import uuid
from collections import deque
from typing import Any

_KEPT = 200


class Activities:
    """The last ones of all targets."""

    def __init__(self) -> None:
        self._kept: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    def of(self, resource: str | None, dimension: str | None) -> list[dict[str, Any]]:
        """Those of a resource, the newest first; None: of all."""
        return [
            each
            for each in reversed(self._kept)
            if resource in (None, each["ResourceId"]) and dimension in (None, each["ScalableDimension"])
        ]

    def begin(self, resource: str, dimension: str, what: str, count: int, cause: str) -> dict[str, Any]:
        """``what`` ("desired copy count") is being set to ``count``; to be ended by ``end``."""
        activity: dict[str, Any] = {
            "ActivityId": str(uuid.uuid4()),
            "ServiceNamespace": "sagemaker",
            "ResourceId": resource,
            "ScalableDimension": dimension,
            "Description": f"Setting {what} to {count}.",
            "Cause": cause,
            "StartTime": time.time(),
            "StatusCode": "InProgress",
        }
        self._kept.append(activity)
        return activity


def end(activity: dict[str, Any], what: str, count: int, reason: str | None) -> None:
    """``reason``: why it failed; None when it did not."""
    text = f"Successfully set {what} to {count}. Change successfully fulfilled by sagemaker."
    if reason is not None:
        text = f"Failed to set {what} to {count}. Reason: {reason}"
    activity |= {
        "EndTime": time.time(),
        "StatusCode": "Successful" if reason is None else "Failed",
        "StatusMessage": text,
    }
