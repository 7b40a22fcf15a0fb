"""Endpoint, from the wish to the last trace, on the real emulator with a container that echoes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.sagemaker.deploying.conftest import BUCKET, TYPE, left
from tests.support.emulator import ROLE

from bloomery.errors import DeploymentRefusedError, EndpointFailedError, InvocationError, SageMakerError
from bloomery.sagemaker.deploying import AsyncOutput, Component, Deployment, Endpoint, Order
from bloomery.sagemaker.deploying.events import Note, Progress
from bloomery.sagemaker.deploying.launching import Patience
from bloomery.sagemaker.operating.expiry import expiry
from bloomery.sagemaker.operating.logs import LogLine
from bloomery.sagemaker.session import Session

AT_ONCE = Patience(retries=1, pause=0.0)


@pytest.fixture(scope="module")
def endpoint(session: Session, archive: str) -> Iterator[Endpoint]:
    """One that serves, for tests that only ask it."""
    wanted = Deployment("served", (TYPE,), archive, image="echo", role=ROLE)
    with Endpoint.deploy(wanted, session) as endpoint:
        yield endpoint


def test_a_deployment_is_made_told_of_and_removed(session: Session, wanted: Deployment) -> None:
    events: list[Any] = []
    wanted = replace(wanted, ttl=timedelta(hours=4), environment={"A": "b"}, tags={"team": "x"}, tensor_parallel=2)
    with Endpoint.deploy(wanted, session, tell=events.append) as endpoint:
        assert endpoint.status() == "InService"
        model = session.call("sagemaker", "DescribeModel", ModelName=wanted.name)
        assert model["PrimaryContainer"]["Environment"] == {"A": "b", "TENSOR_PARALLEL_DEGREE": "2"}
        arn = session.call("sagemaker", "DescribeEndpoint", EndpointName=wanted.name)["EndpointArn"]
        tags = {each["Key"]: each["Value"] for each in session.call("sagemaker", "ListTags", ResourceArn=arn)["Tags"]}
        assert tags["team"] == "x"
        assert tags["bloomery:created-by"].startswith("bloomery ")
        expires = expiry(tags)
        assert expires is not None
        assert timedelta(hours=3.9) < expires - datetime.now(UTC) <= timedelta(hours=4)
    assert left(session, wanted.name) == []
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes == [f"{each} {wanted.name}" for each in ("CreateModel", "CreateEndpointConfig", "CreateEndpoint")]
    statuses = [event.status for event in events if isinstance(event, Progress)]
    assert statuses[0] == "Creating"
    assert statuses[-1] == "InService"
    with pytest.raises(SageMakerError, match="there is no endpoint"):
        endpoint.status()


def test_a_directory_is_packaged_and_uploaded(session: Session, name: str, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "model.py").write_text("def handle(inputs):\n    return None\n")
    (code / "serving.properties").write_text("engine=Python\n")
    wanted = Deployment(name, (TYPE,), str(code), image="echo", upload_to=f"s3://{BUCKET}/mine/")
    with Endpoint.deploy(wanted, session) as endpoint:
        model = session.call("sagemaker", "DescribeModel", ModelName=name)["PrimaryContainer"]
        assert model["ModelDataUrl"].startswith(f"s3://{BUCKET}/mine/code-")
        found = endpoint.invoke({"do": {"environment": True}}).value
        files = endpoint.invoke({"do": {"files": found["SM_MODEL_DIR"]}}).value
        assert set(files) == {"model.py", "serving.properties"}


class TestInvocations:
    def test_a_prompt_becomes_inputs(self, endpoint: Endpoint) -> None:
        answer = endpoint.invoke("To be")
        assert answer.value == {"inputs": "To be"}
        assert answer.variant == "AllTraffic"

    def test_json_bytes_and_files(self, endpoint: Endpoint, tmp_path: Path) -> None:
        assert endpoint.invoke([1, {"a": None}]).value == [1, {"a": None}]
        assert endpoint.invoke(b"\x00\xff", content_type="image/png").value == b"\x00\xff"
        file = tmp_path / "words.txt"
        file.write_text("déjà")
        answer = endpoint.invoke(file)
        assert (answer.value, answer.content_type) == ("déjà", "text/plain")

    def test_options_reach_the_container(self, endpoint: Endpoint) -> None:
        answer = endpoint.invoke({"do": {}}, accept="text/x", custom_attributes="trace=1", target_variant="AllTraffic")
        headers = {key.lower(): value for key, value in answer.value["headers"].items()}
        assert headers["accept"] == "text/x"
        assert headers["x-amzn-sagemaker-custom-attributes"] == answer.custom_attributes == "trace=1"

    def test_what_cannot_be_sent(self, endpoint: Endpoint, tmp_path: Path) -> None:
        with pytest.raises(InvocationError, match="set cannot be sent as JSON"):
            endpoint.invoke({1, 2})
        with pytest.raises(InvocationError, match="SageMaker takes 6291456"):
            endpoint.invoke(b"x" * 6_291_457)
        with pytest.raises(InvocationError, match="none cannot be read: No such file"):
            endpoint.invoke(tmp_path / "none")

    def test_the_containers_error_in_its_own_words(self, endpoint: Endpoint) -> None:
        with pytest.raises(
            InvocationError, match=r"answered 503: .*\nits log: /aws/sagemaker/Endpoints/served"
        ) as caught:
            endpoint.invoke({"do": {"status": 503}})
        assert caught.value.status == 503
        assert json.loads(caught.value.answer)["did"] == {"status": 503}

    def test_a_stream_comes_piece_by_piece(self, endpoint: Endpoint, tmp_path: Path) -> None:
        """A later piece waits for a file that is made when the one before it has arrived."""
        said = {"do": {"stream": ["é"[0], "zwei", "drei"], "gate": str(tmp_path)}}
        seen = []
        for number, text in enumerate(endpoint.stream(said), 1):
            seen.append(text)
            (tmp_path / str(number)).touch()
        assert seen == ["é", "zwei", "drei"]

    def test_a_stream_that_breaks_says_so(self, session: Session, archive: str, name: str) -> None:
        wanted = Deployment(name, (TYPE,), archive, image="echo", role=ROLE)
        with Endpoint.deploy(wanted, session) as endpoint:
            stream = endpoint.stream({"do": {"stream": ["a", "b", "c"], "pause": 0.1, "break_after": 2}})
            seen: list[str] = []
            with pytest.raises(InvocationError, match=f"stream of endpoint {name} broke off.*ModelStreamError"):
                seen.extend(stream)  # keeps what came before
            assert "".join(seen) == "ab"

    def test_no_such_endpoint(self, session: Session) -> None:
        with pytest.raises(InvocationError, match=r"Endpoint none of account .* not found: `bloomery status none`"):
            Endpoint("none", session).invoke("x")

    def test_not_asynchronous(self, endpoint: Endpoint) -> None:
        with pytest.raises(InvocationError, match="leave --async out"):
            endpoint.invoke_async("x")
        with pytest.raises(InvocationError, match=r"has 128001 bytes.*--input"):
            endpoint.invoke_async(b"x" * 128_001)


def test_asynchronous_answers_and_failures(session: Session, wanted: Deployment, put: Callable[..., str]) -> None:
    places = AsyncOutput(f"s3://{BUCKET}/out/", f"s3://{BUCKET}/failed/", 2)
    with Endpoint.deploy(replace(wanted, async_output=places), session) as endpoint:
        assert json.loads(endpoint.invoke_async({"a": 1}).result(60)) == {"a": 1}
        put("in.json", b'{"b": 2}')
        answer = endpoint.invoke_async(input_location=f"s3://{BUCKET}/in.json")
        assert json.loads(answer.result(60)) == {"b": 2}
        assert answer.done()
        with pytest.raises(InvocationError, match=f"of endpoint {wanted.name} failed"):
            endpoint.invoke_async({"do": {"status": 500}}).result(60)
        with pytest.raises(InvocationError, match=r"no answer that we may read at s3://.* within 0 s"):
            endpoint.invoke_async({"do": {"sleep": 5}}).result(0)
        with pytest.raises(InvocationError, match=r"InvokeEndpointAsync.*--async"):
            endpoint.invoke("x")


def test_an_inference_component_with_room_to_scale(session: Session, wanted: Deployment) -> None:
    component = Component(copies=2, memory=1024, max_instances=2)
    with Endpoint.deploy(replace(wanted, component=component), session) as endpoint:
        assert endpoint.invoke("x", inference_component=wanted.name).value == {"inputs": "x"}
        with pytest.raises(InvocationError, match="name one with --component"):
            endpoint.invoke("x")
        config = session.call("sagemaker", "DescribeEndpointConfig", EndpointConfigName=wanted.name)
        limits = {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2}
        assert config["ProductionVariants"][0]["ManagedInstanceScaling"] == limits
        found = session.call("sagemaker", "DescribeInferenceComponent", InferenceComponentName=wanted.name)
        assert found["RuntimeConfig"]["DesiredCopyCount"] == 2
    assert left(session, wanted.name) == []


class TestFailures:
    @pytest.mark.full
    def test_a_component_that_fails_takes_everything_along(self, session: Session, wanted: Deployment) -> None:
        broken = replace(wanted, component=Component(memory=1024), environment={"DIE_AT_START": "3"})
        with pytest.raises(EndpointFailedError, match=f"inference component {wanted.name} failed"):
            Endpoint.deploy(broken, session, order=Order(rollback=True))
        assert left(session, wanted.name) == []

    def test_a_component_has_to_be_waited_for(self, session: Session, wanted: Deployment) -> None:
        with pytest.raises(DeploymentRefusedError, match="has to be waited for"):
            Endpoint.deploy(replace(wanted, component=Component()), session, order=Order(wait=False))
        assert left(session, wanted.name) == []

    def test_a_container_that_dies_shows_its_last_words(self, session: Session, wanted: Deployment) -> None:
        events: list[Any] = []
        with pytest.raises(EndpointFailedError, match="ping health check") as caught:
            Endpoint.deploy(replace(wanted, environment={"DIE_AT_START": "3"}), session, tell=events.append)
        assert "cannot find the weights" in caught.value.log
        assert "what to do: the container ended, or was not ready" in str(caught.value)
        assert "cannot find the weights" in [event.text for event in events if isinstance(event, LogLine)]
        endpoint = Endpoint(wanted.name, session)
        assert endpoint.status() == "Failed"  # to be looked at
        endpoint.delete()
        assert left(session, wanted.name) == []

    def test_what_was_made_goes_when_the_endpoint_is_refused(
        self, session: Session, wanted: Deployment, fault: Callable[..., None]
    ) -> None:
        fault("ResourceLimitExceeded")
        with pytest.raises(SageMakerError, match="request-service-quota-increase --service-code sagemaker") as caught:
            Endpoint.deploy(wanted, session)
        assert f"'{TYPE} for endpoint usage'" in str(caught.value)
        assert left(session, wanted.name) == []

    @pytest.mark.full
    def test_throttling_is_waited_out(self, session: Session, wanted: Deployment, fault: Callable[..., None]) -> None:
        fault("ThrottlingException", operation="CreateEndpointConfig", times=1)
        with Endpoint.deploy(wanted, session) as endpoint:
            assert endpoint.status() == "InService"

    def test_without_capacity_it_is_asked_for_again(
        self, session: Session, wanted: Deployment, fault: Callable[..., None]
    ) -> None:
        fault("InsufficientInstanceCapacity", times=1)
        events: list[Any] = []
        with Endpoint.deploy(wanted, session, tell=events.append, order=Order(patience=AT_ONCE)):
            notes = [event.text for event in events if isinstance(event, Note)]
        assert f"AWS has no {TYPE} free now" in notes
        assert notes.count(f"CreateEndpoint {wanted.name}") == 2
        assert notes.count(f"CreateModel {wanted.name}") == 1

    def test_the_next_instance_type_is_taken(
        self, session: Session, wanted: Deployment, fault: Callable[..., None]
    ) -> None:
        fault("InsufficientInstanceCapacity", instance_type="ml.m5.2xlarge")
        wanted = replace(wanted, instance_types=("ml.m5.2xlarge", TYPE))
        with Endpoint.deploy(wanted, session, order=Order(patience=AT_ONCE)):
            config = session.call("sagemaker", "DescribeEndpointConfig", EndpointConfigName=wanted.name)
        assert config["ProductionVariants"][0]["InstanceType"] == TYPE

    def test_without_capacity_at_all(self, session: Session, wanted: Deployment, fault: Callable[..., None]) -> None:
        fault("InsufficientInstanceCapacity")
        with pytest.raises(EndpointFailedError, match="AWS has no such machine free now"):
            Endpoint.deploy(wanted, session, order=Order(rollback=True, patience=AT_ONCE))
        assert left(session, wanted.name) == []


def test_the_pause_before_each_turn_doubles_and_varies() -> None:
    turns = list(Patience(retries=3, pause=60.0).turns(("a", "b")))
    assert [each for each, _ in turns] == ["a", "b"] * 4
    pauses = [pause for _, pause in turns]
    assert pauses[0] == pauses[1] == pauses[3] == 0
    for pause, middle in zip(pauses[2::2], (60, 120, 240), strict=True):
        assert middle * 0.75 <= pause <= middle * 1.25
