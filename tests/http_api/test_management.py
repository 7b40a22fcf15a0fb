"""Models that are added, scaled and removed while the server runs."""

from __future__ import annotations

import functools
import json
import shutil
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import pytest
from tests.support.certificates import make_certificate
from tests.support.server import LABORATORY, Reply, Server, model_directory, serving

ECHO = """
import os
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    return Output().add_as_json({"pid": os.getpid()})
"""
BROKEN = """
def handle(inputs):
    raise ValueError("the weights are of the wrong shape")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(LABORATORY) as running:
        yield running


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    return model_directory(tmp_path / "echo", ECHO)


def add(server: Server, url: Path | str, **parameters: object) -> Reply:
    return server.request("POST", "/models?" + urlencode({"url": str(url), **parameters}))


def remove(server: Server, name: str) -> Reply:
    return server.request("DELETE", f"/models/{name}")


def describe(server: Server, path: str) -> dict[str, object]:
    (workflow,) = server.request("GET", f"/models/{path}").json()
    (model,) = workflow["models"]
    return dict(model)


def names(server: Server) -> list[str]:
    return [model["modelName"] for model in server.request("GET", "/models").json()["models"]]


def eventually(server: Server, path: str, status: int, seconds: float = 30) -> Reply:
    deadline = time.monotonic() + seconds
    while (reply := server.request("GET", path)).status != status:
        assert time.monotonic() < deadline, (reply.status, reply.body, server.log())
        time.sleep(0.02)
    return reply


class TestAdding:
    def test_a_model_that_was_added_answers_until_it_is_removed(self, server: Server, echo: Path) -> None:
        reply = add(server, echo)
        assert (reply.status, reply.json()) == (200, {"status": 'Model "echo" registered.'})
        assert server.request("POST", "/predictions/echo").status == 200
        assert names(server) == ["laboratory", "echo"]

        reply = remove(server, "echo")
        assert (reply.status, reply.json()) == (200, {"status": 'Model or workflow "echo" unregistered'})
        assert server.request("POST", "/predictions/echo").status == 404
        assert names(server) == ["laboratory"]

    def test_the_parameters_are_settings_of_the_model(self, server: Server, echo: Path) -> None:
        stated = {"job_queue_size": 7, "batch_size": 2, "max_batch_delay": 30, "min_worker": 2, "max_worker": 3}
        assert add(server, echo, model_name="tuned", model_version="v1", **stated).status == 200
        model = describe(server, "tuned/v1")
        remove(server, "tuned")

        assert (model["modelName"], model["version"], model["status"]) == ("tuned", "v1", "READY")
        assert (model["queueSize"], model["batchSize"], model["maxBatchDelayMillis"]) == (7, 2, 30)
        assert model["loadedAtStartup"] is False
        (group,) = model["workerGroups"]  # type: ignore[misc]
        assert (group["minWorkers"], group["maxWorkers"], len(group["workers"])) == (2, 3, 2)
        assert group["device"] == {"deviceType": "cpu", "deviceId": -1}

    def test_a_json_body_does_what_a_query_does(self, server: Server, echo: Path) -> None:
        body = {"url": echo.as_uri(), "model_name": "named", "min_worker": 1, "max_worker": 1, "synchronous": True}
        assert server.post(body, "/models").status == 200
        assert "named" in names(server)
        remove(server, "named")

    def test_two_versions_live_side_by_side(self, server: Server, echo: Path) -> None:
        for version in ("1", "2"):
            assert add(server, echo, model_version=version).status == 200
        described = server.request("GET", "/models/echo").json()
        assert [workflow["version"] for workflow in described] == ["1", "2"]
        assert server.request("POST", "/predictions/echo/1").status == 200
        assert server.request("DELETE", "/models/echo/1").status == 200
        assert server.request("POST", "/predictions/echo/1").status == 404
        assert server.request("POST", "/predictions/echo/2").status == 200
        remove(server, "echo")

    def test_without_a_url_it_is_djlservings_400(self, server: Server) -> None:
        reply = server.request("POST", "/models")
        assert (reply.status, reply.json()["message"]) == (400, "Parameter url is required.")

    @pytest.mark.parametrize(
        "url", ["/no/such/place", "file:///no/such/place", "ftp://host/x", "~nobody-here/x", "x" * 5000]
    )
    def test_a_url_that_is_nowhere_is_a_404(self, server: Server, url: str) -> None:
        reply = add(server, url)
        assert (reply.status, reply.json()["type"]) == (404, "ModelNotFoundException")
        assert reply.json()["message"] == f"Invalid model url: {url}"

    @pytest.mark.parametrize(
        "url", ["s3://bucket/model/", "https://host/model.tar.gz?signature=abc", "hf://a/b", "a/b"]
    )
    def test_a_url_from_elsewhere_is_refused_unless_enabled(self, server: Server, url: str) -> None:
        reply = add(server, url)
        assert reply.status == 403
        assert "allow_model_urls" in reply.json()["message"]
        assert "signature=abc" not in reply.json()["message"]

    def test_a_name_that_is_taken_is_a_409(self, server: Server) -> None:
        reply = add(server, LABORATORY)
        assert (reply.status, reply.json()["message"]) == (409, "Model laboratory is already registered.")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("batch_size", "0"),
            ("batch_size", "many"),
            ("job_queue_size", "-1"),
            ("min_worker", "0"),
            ("synchronous", "maybe"),
            ("model_name", "a/b"),
            ("engine", "Java"),
        ],
    )
    def test_a_wrong_parameter_is_a_400_that_names_it(self, server: Server, echo: Path, key: str, value: str) -> None:
        reply = add(server, echo, **{key: value})
        assert reply.status == 400
        assert key in reply.json()["message"]
        assert value in reply.json()["message"]
        assert names(server) == ["laboratory"]

    def test_more_workers_than_a_machine_can_have_are_refused(self, server: Server, echo: Path) -> None:
        reply = add(server, echo, min_worker=99999)
        assert reply.status == 400
        assert "minWorkers=99999 and 1 process(es) per group" in reply.json()["message"]

    @pytest.mark.parametrize("body", [b"{", b"[1]", b'{"url": {}}', b"\xff", b"[" * 100_000])
    def test_a_body_that_makes_no_sense_is_a_400(self, server: Server, body: bytes) -> None:
        assert server.request("POST", "/models", body).status == 400

    def test_a_directory_with_several_models_is_refused(self, server: Server, tmp_path: Path) -> None:
        for name in ("one", "two"):
            model_directory(tmp_path / "store" / name, ECHO)
        reply = add(server, tmp_path / "store")
        assert reply.status == 400
        assert "one, two" in reply.json()["message"]

    def test_synchronous_false_answers_at_once(self, server: Server, echo: Path) -> None:
        reply = add(server, echo, synchronous="false")
        assert (reply.status, reply.json()) == (202, {"status": 'Model "echo" registration scheduled.'})
        deadline = time.monotonic() + 30
        while describe(server, "echo")["status"] != "READY":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        remove(server, "echo")


class TestAddingWhatCannotLoad:
    def test_the_error_is_the_answer_and_nothing_is_left(self, server: Server, tmp_path: Path) -> None:
        broken = model_directory(tmp_path / "broken", BROKEN)
        reply = add(server, broken)
        assert (reply.status, reply.json()["type"]) == (500, "EngineException")
        assert "the weights are of the wrong shape" in reply.json()["message"]
        assert names(server) == ["laboratory"]
        assert server.ping().json() == {"laboratory": {"status": "Healthy"}}
        assert remove(server, "broken").status == 404

    def test_its_report_is_what_a_manager_reads_afterwards(self, server: Server, tmp_path: Path) -> None:
        broken = model_directory(tmp_path / "broken", BROKEN)
        assert add(server, broken, synchronous="false").status == 202
        eventually(server, "/models/broken", 404)
        message = server.request("GET", "/models/broken").json()["message"]
        assert "the weights are of the wrong shape" in message
        assert "model.py" in message
        # Somebody behind a proxy may not manage, and is told no more than that there is no such model.
        other = server.request("GET", "/models/broken", headers={"X-Forwarded-For": "192.0.2.1"}).json()
        assert other["message"] == "Model or workflow not found: broken"

    def test_it_can_be_added_once_it_is_mended(self, server: Server, tmp_path: Path) -> None:
        directory = model_directory(tmp_path / "mended", BROKEN)
        assert add(server, directory).status == 500
        (directory / "model.py").write_text(ECHO)
        assert add(server, directory).status == 200
        remove(server, "mended")
        assert server.request("GET", "/models/mended").json()["message"] == "Model or workflow not found: mended"

    def test_a_model_that_crashes_for_good_does_not_end_the_server(self, server: Server, tmp_path: Path) -> None:
        crashing = ECHO.replace("return Output()", "os._exit(9); return Output()")
        directory = model_directory(tmp_path / "crashing", crashing, "engine=Python\nretry_threshold=0\n")
        assert add(server, directory).status == 200
        assert server.request("POST", "/predictions/crashing").status == 503
        deadline = time.monotonic() + 30
        while describe(server, "crashing")["status"] != "failed":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "could not be kept alive" in str(describe(server, "crashing")["report"])
        hidden = server.request("GET", "/models/crashing", headers={"X-Forwarded-For": "192.0.2.1"})
        told = hidden.json()[0]["models"][0]
        assert "report" not in told
        assert told["error"] == describe(server, "crashing")["error"] == "ModelLoadError"
        assert server.ping().status == 200
        assert server.post({}, "/predictions/laboratory").status == 200
        assert remove(server, "crashing").status == 200


class TestScaling:
    def test_the_workers_are_as_many_as_asked_for(self, server: Server) -> None:
        for count in (3, 1):
            reply = server.request("PUT", f"/models/laboratory?min_worker={count}&max_worker={count}")
            assert reply.status == 200
            assert reply.json()["status"] == (
                f'Workflow "laboratory" worker scaled. New Worker configuration min workers:{count} max workers:{count}'
            )
            (group,) = describe(server, "laboratory")["workerGroups"]  # type: ignore[misc]
            assert [worker["status"] for worker in group["workers"]] == ["READY"] * count

    def test_a_minimum_above_the_maximum_is_refused(self, server: Server) -> None:
        reply = server.request("PUT", "/models/laboratory?min_worker=3&max_worker=1")
        assert reply.status == 400
        assert "min_worker=3 is above max_worker=1" in reply.json()["message"]

    def test_more_workers_than_the_machine_can_have_are_refused(self, server: Server) -> None:
        reply = server.request("PUT", "/models/laboratory?min_worker=99999")
        assert reply.status == 400
        assert "minWorkers=99999 and 1 process(es) per group" in reply.json()["message"]
        (group,) = describe(server, "laboratory")["workerGroups"]  # type: ignore[misc]
        assert len(group["workers"]) == 1

    def test_a_minimum_alone_raises_the_maximum(self, server: Server) -> None:
        reply = server.request("PUT", "/models/laboratory?min_worker=2")
        assert reply.json()["status"].endswith("min workers:2 max workers:2")
        server.request("PUT", "/models/laboratory?min_worker=1&max_worker=1")

    def test_no_request_is_lost_meanwhile(self, server: Server) -> None:
        answers: list[tuple[int, bytes]] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                reply = server.post({})
                answers.append((reply.status, reply.body if reply.status != 200 else b""))

        askers = [threading.Thread(target=ask) for _ in range(3)]
        for asker in askers:
            asker.start()
        for count in (3, 1):
            server.request("PUT", f"/models/laboratory?min_worker={count}&max_worker={count}")
        done.set()
        for asker in askers:
            asker.join()
        assert len(answers) >= 3
        assert set(answers) == {(200, b"")}, server.log()

    def test_an_unknown_model_is_a_404(self, server: Server) -> None:
        assert server.request("PUT", "/models/nobody?min_worker=1").status == 404


class TestRemoving:
    def test_a_running_request_finishes(self, server: Server, tmp_path: Path) -> None:
        started, release = tmp_path / "started", tmp_path / "release"
        assert add(server, LABORATORY, model_name="leaving").status == 200
        replies: list[Reply] = []
        order = {"do": "wait", "started": str(started), "release": str(release)}
        asking = threading.Thread(target=lambda: replies.append(server.post(order, "/predictions/leaving")))
        asking.start()
        while not started.exists():
            time.sleep(0.01)
        removing = threading.Thread(target=lambda: replies.append(remove(server, "leaving")))
        removing.start()
        eventually(server, "/models/leaving", 404)
        assert not replies
        release.touch()
        asking.join(30)
        removing.join(30)
        assert [reply.status for reply in replies] == [200, 200]
        assert b"released" in [reply.body for reply in replies]

    def test_an_unknown_model_is_a_404(self, server: Server) -> None:
        reply = remove(server, "nobody")
        assert (reply.status, reply.json()["type"]) == (404, "ModelNotFoundException")

    def test_the_server_ends_while_a_removed_model_still_has_a_request(self, tmp_path: Path) -> None:
        started = tmp_path / "started"
        with serving(LABORATORY, env={"SERVING_SHUTDOWN_GRACE": "0.5"}) as server:
            order = {"do": "wait", "started": str(started), "release": str(tmp_path / "never")}
            replies: list[Reply] = []
            asking = threading.Thread(target=lambda: replies.append(server.post(order)))
            asking.start()
            while not started.exists():
                time.sleep(0.01)
            removing = threading.Thread(target=lambda: replies.append(remove(server, "laboratory")))
            removing.start()
            eventually(server, "/models/laboratory", 404)
            assert server.stop() == 0
            assert server.leftovers == []
            asking.join(30)
            removing.join(30)
            assert sorted(reply.status for reply in replies) == [200, 503]


class TestTheLogsLevel:
    def test_it_is_set(self, server: Server) -> None:
        assert server.request("POST", "/server/logging?level=error").json() == {"status": "OK"}
        server.request("GET", "/models", headers={"x-request-id": "unlogged-1"})
        assert server.request("POST", "/server/logging?level=INFO").status == 200
        server.request("GET", "/models", headers={"x-request-id": "logged-2"})
        server.wait_for("logged-2")
        assert not any("unlogged-1" in line for line in server.log().splitlines())

    def test_an_unknown_level_is_a_400_that_names_those_there_are(self, server: Server) -> None:
        reply = server.request("POST", "/server/logging?level=chatty")
        assert reply.status == 400
        assert "WARNING" in reply.json()["message"]


def test_models_from_elsewhere_are_fetched_by_a_child_when_enabled(tmp_path: Path) -> None:
    with serving(LABORATORY, env={"SERVING_ALLOW_MODEL_URLS": "true"}) as server:
        reply = add(server, "https://127.0.0.1:1/model.tar.gz?X-Amz-Signature=deadbeef")
        assert reply.status == 400
        assert "https://127.0.0.1:1/model.tar.gz: 127.0.0.1:1 refuses connections" in reply.json()["message"]
        assert names(server) == ["laboratory"]
        assert "deadbeef" not in server.log() + json.dumps(reply.json())
        assert not [name for name in server.leftovers if name.startswith("bloomery-model-")]


def test_a_server_whose_models_have_all_gone_is_still_there(tmp_path: Path) -> None:
    with serving(LABORATORY) as server:
        assert remove(server, "laboratory").status == 200
        assert (server.ping().status, server.ping().json()) == (200, {})
        assert add(server, LABORATORY).status == 200
        assert server.post({}).status == 200


def test_an_archive_is_unpacked_for_as_long_as_its_model_lives(server: Server, echo: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "packed"), "gztar", echo)
    assert add(server, archive).status == 200
    assert server.request("POST", "/predictions/packed").status == 200
    unpacked = list((server.scratch / "tmp").glob("bloomery-models-*/*/packed"))
    assert len(unpacked) == 1
    assert remove(server, "packed").status == 200
    assert not unpacked[0].exists()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An https server with the files of ``tmp_path/site``: its address, and the certificate to trust."""
    certificate, key = make_certificate(tmp_path)
    (tmp_path / "site").mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        served.socket = context.wrap_socket(served.socket, server_side=True)
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"https://127.0.0.1:{served.server_port}", certificate
        served.shutdown()
        thread.join()


def test_an_archive_from_elsewhere_is_served_when_enabled(site: tuple[str, Path], echo: Path, tmp_path: Path) -> None:
    address, certificate = site
    shutil.make_archive(str(tmp_path / "site" / "remote"), "gztar", echo)
    environment = {"SERVING_ALLOW_MODEL_URLS": "true", "SSL_CERT_FILE": str(certificate)}
    with serving(LABORATORY, env=environment) as server:
        reply = add(server, f"{address}/remote.tar.gz?X-Amz-Signature=deadbeef")
        assert reply.status == 200, reply.body
        assert server.request("POST", "/predictions/remote").status == 200
        assert describe(server, "remote")["modelUrl"] == f"{address}/remote.tar.gz"
        reply = add(server, f"{address}/remote.tar.gz", model_name="later", synchronous="false")
        assert (reply.status, reply.json()["status"]) == (202, 'Model "later" registration scheduled.')
        eventually(server, "/models/later", 200)
        assert "deadbeef" not in server.log()
        assert server.stop() == 0
        assert server.leftovers == []
