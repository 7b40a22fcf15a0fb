"""Settings that choose how errors, health and request ids look to clients."""

from __future__ import annotations

from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.server import LABORATORY, model_directory, serving

from bloomery.errors import (
    BadRequestError,
    CapacityError,
    DeadlineError,
    ModelNotFoundError,
    RequestError,
    ServiceUnavailableError,
)
from bloomery.http_api.statuses import Statuses
from bloomery.settings import ServerSettings

NEVER_LOADS = "import time\ndef handle(inputs):\n    time.sleep(3600)\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CapacityError("x"), 429),
        (DeadlineError("x"), 504),
        (ServiceUnavailableError("x"), 502),
        (BadRequestError("x"), 422),
        (RequestError("x"), 501),
        (ModelNotFoundError("x"), 404),
    ],
)
def test_each_kind_of_error_has_its_own(error: RequestError, status: int) -> None:
    statuses = Statuses(
        ServerSettings(
            throttle_error_http_code=429,
            timeout_http_code=504,
            wlm_error_http_code=502,
            bad_request_http_code=422,
            server_error_http_code=501,
        )
    )
    for _ in range(2):  # the same however often an error passes
        statuses.apply(error)
        assert error.status == status


def test_a_full_queue_may_be_a_429(tmp_path: Path) -> None:
    def order(number: int) -> dict[str, str]:
        return {"do": "wait", "started": str(tmp_path / str(number)), "release": str(tmp_path / "release")}

    options = ["-o", "throttle_error_http_code=429", "-o", "job_queue_size=1"]
    with serving(LABORATORY, *options) as server, ThreadPoolExecutor() as clients:
        first = clients.submit(server.post, order(1))
        try:
            while not (tmp_path / "1").exists():  # the worker has it; of the next two one may wait
                assert not first.done(), first.result()
            done, _ = futures.wait(
                [clients.submit(server.post, order(number)) for number in (2, 3)], 30, futures.FIRST_COMPLETED
            )
        finally:
            (tmp_path / "release").touch()
        refusal = done.pop().result()
        assert (refusal.status, refusal.json()["code"]) == (429, 429)
        assert refusal.json()["type"] == "WlmCapacityException"
        assert refusal.headers["retry-after"]


def test_an_answer_that_takes_too_long_may_be_a_504(tmp_path: Path) -> None:
    order = {"do": "wait", "started": str(tmp_path / "started"), "release": str(tmp_path / "never")}
    options = ["-o", "timeout_http_code=504", "-o", "option.predict_timeout=1"]
    with serving(LABORATORY, *options) as server:
        reply = server.post(order)
        assert (reply.status, reply.json()["code"]) == (504, 504)


def test_a_model_that_is_not_ready_and_a_wrong_request_have_the_chosen_statuses(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "m", NEVER_LOADS)
    environment = {"SERVING_WLM_ERROR_HTTP_CODE": "500", "SERVING_BAD_REQUEST_HTTP_CODE": "422"}
    with serving(directory, env=environment, ready=False) as server:
        assert server.post({}).status == 500
        assert server.request("GET", "/models?limit=many").status == 422
        completion = {"model": "m", "prompt": "To be"}
        assert server.post(completion, "/v1/completions").status == 500


def test_some_models_being_ready_may_be_a_207(tmp_path: Path) -> None:
    model_directory(tmp_path / "store" / "never", NEVER_LOADS)
    (tmp_path / "store" / "laboratory").symlink_to(LABORATORY)
    with serving("-s", tmp_path / "store", "-o", "allow_multi_status=true") as server:
        reply = server.ping()
        assert reply.status == 207
        assert (reply.json()["laboratory"]["status"], reply.json()["never"]["status"]) == ("Healthy", "Unhealthy")


def test_the_request_id_may_have_another_header(tmp_path: Path) -> None:
    with serving(LABORATORY, "-o", "request_id_header_key=x-trace") as server:
        reply = server.post({"do": "report"}, **{"X-Trace": "mine"})
        assert reply.headers["x-trace"] == "mine"
        assert "x-request-id" not in reply.headers
        assert reply.json()["properties"]["requestId"] == "mine"


@pytest.mark.parametrize(
    ("stated", "seen"), [({}, "text/csv"), ({"Accept": "*/*"}, "text/csv"), ({"Accept": "text/plain"}, "text/plain")]
)
def test_requests_without_an_accept_get_sagemakers_default(stated: dict[str, str], seen: str) -> None:
    with serving(LABORATORY, env={"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"}) as server:
        properties = server.post({"do": "report"}, **stated).json()["properties"]
    assert properties["Accept"] == seen
