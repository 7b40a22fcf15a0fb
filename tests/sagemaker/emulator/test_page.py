from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

from tests.sagemaker.emulator.conftest import configured, status
from tests.support.emulator import Emulator, until


def get(url: str) -> tuple[Any, bytes]:
    with urllib.request.urlopen(url) as answer:
        return answer.headers, answer.read()


def test_the_page_needs_nothing_from_elsewhere(control: Emulator) -> None:
    headers, body = get(f"{control.url}/_bloomery")  # redirected to its slash
    html = body.decode()
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []
    assert "http://" not in html
    assert "https://" not in html


def test_it_tells_what_runs_and_what_failed(control: Emulator, name: str) -> None:
    sagemaker = control.client("sagemaker")
    configured(sagemaker, name, HOLD="/")
    configured(sagemaker, f"{name}-failed", FAILURE="on purpose")
    for each in (name, f"{name}-failed"):
        sagemaker.create_endpoint(EndpointName=each, EndpointConfigName=each)
    until(lambda: status(sagemaker, f"{name}-failed") == "Failed", "the endpoint has failed")
    _, body = get(f"{control.url}/_bloomery/endpoints")
    endpoints = {endpoint["name"]: endpoint for endpoint in json.loads(body)["endpoints"]}
    creating, failed = endpoints[name], endpoints[f"{name}-failed"]
    assert (creating["status"], creating["phase"]) == ("Creating", "waiting for /ping")
    assert creating["reason"] is None
    assert creating["log"] == [f"a line of {name}"]
    assert 0 <= creating["elapsed"] < 300
    assert creating["variants"] == [
        {"name": "AllTraffic", "model": name, "image": "image", "instances": 1, "type": "ml.p4d.24xlarge"}
    ]
    assert (failed["status"], failed["phase"], failed["reason"]) == ("Failed", "", "on purpose")
