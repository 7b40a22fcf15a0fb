"""How long the model took to load, as far as the endpoint tells."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

_SAMPLE = re.compile(r"^bloomery_load_seconds\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def of_server(url: str) -> tuple[float | None, str]:
    """From bloomery's /metrics: the phases of a group's load, added up; of the slowest group."""
    parts = urlsplit(url)
    try:
        with urllib.request.urlopen(f"{parts.scheme}://{parts.netloc}/metrics", timeout=10) as answer:
            text = answer.read().decode(errors="replace")
    except (urllib.error.URLError, OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        return None, "unknown: the server has no /metrics"
    groups: dict[tuple[str, str], float] = defaultdict(float)
    for labels, value in _SAMPLE.findall(text):
        named = dict(_LABEL.findall(labels))
        groups[named.get("model", ""), named.get("group", "")] += float(value)
    if not groups:
        return None, "unknown: /metrics has no bloomery_load_seconds"
    return max(groups.values()), "bloomery_load_seconds of /metrics"


def of_endpoint(told: Mapping[str, Any]) -> tuple[float | None, str]:
    """From the call that created a SageMaker endpoint until it was in service: instance, image and archive included.
    ``told``: DescribeEndpoint's answer. An endpoint that was updated since does not tell any more."""
    if told["EndpointStatus"] != "InService":
        return None, f"unknown: the endpoint is {told['EndpointStatus']}"
    seconds = (told["LastModifiedTime"] - told["CreationTime"]).total_seconds()
    return seconds, "CreationTime to LastModifiedTime of DescribeEndpoint"
