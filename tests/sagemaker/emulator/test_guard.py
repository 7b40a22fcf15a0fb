"""Pages of other sites: a browser sends their requests to 127.0.0.1, too."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest
from tests.support.emulator import Emulator


def answer(emulator: Emulator, method: str = "POST", **headers: str) -> int:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(emulator.url, b"{}" if method == "POST" else None, headers, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            status: int = response.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


LIST = {"X_Amz_Target": "SageMaker.ListModels"}


@pytest.mark.parametrize("origin", ["http://evil.example", "https://127.0.0.1", "null"])
def test_another_sites_page_is_refused(control: Emulator, origin: str) -> None:
    assert answer(control, Origin=origin, **LIST) == 403
    assert answer(control, "OPTIONS", Origin=origin, Access_Control_Request_Method="PUT") == 403


def test_a_name_that_was_led_here_is_refused(control: Emulator) -> None:
    assert answer(control, Host="evil.example", **LIST) == 403
    assert answer(control, "GET", Host="evil.example:8099") == 403


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost:8099",
        "bucket.localhost",
        "[::1]:8099",
        "sagemaker",
        "host.docker.internal",
        "api.sagemaker.us-east-1.amazonaws.com",
    ],
)
def test_names_of_this_machine_are_answered(control: Emulator, host: str) -> None:
    assert answer(control, Host=host, **LIST) == 200


def test_its_own_page_is_answered(control: Emulator) -> None:
    assert answer(control, Origin=control.url, **LIST) == 200
