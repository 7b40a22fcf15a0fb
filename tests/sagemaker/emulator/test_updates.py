"""UpdateEndpoint against real containers, with clients that never stop asking."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.sagemaker.emulator.conftest import status
from tests.sagemaker.emulator.test_life_cycle import ECHO_IMAGE, logged
from tests.support.emulator import REGION, Emulator, emulating, until

_CLIENTS = 8


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with emulating(tmp_path_factory.mktemp("updates") / "state", *ECHO_IMAGE) as running:
        yield running


@pytest.fixture
def sagemaker(emulator: Emulator) -> Any:
    return emulator.client("sagemaker")


def configure(
    sagemaker: Any,
    variants: dict[str, dict[str, Any]] | None = None,
    asynchronous: dict[str, Any] | None = None,
    **environment: str,
) -> str:
    """A configuration of its own; its containers have ``environment`` and say by CONFIG which one they are of."""
    name = f"c{uuid.uuid4().hex[:12]}"
    sagemaker.create_model(
        ModelName=name, PrimaryContainer={"Image": "echo", "Environment": {"CONFIG": name, **environment}}
    )
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[
            {
                "VariantName": variant,
                "ModelName": name,
                "InstanceType": "ml.g5.xlarge",
                "InitialInstanceCount": 1,
                **given,
            }
            for variant, given in (variants or {"AllTraffic": {}}).items()
        ],
        **({"AsyncInferenceConfig": asynchronous} if asynchronous else {}),
    )
    return name


def start(sagemaker: Any, config: str) -> str:
    """An endpoint that is in service."""
    name = f"e{uuid.uuid4().hex[:12]}"
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    settled(sagemaker, name)
    return name


def settled(sagemaker: Any, name: str) -> dict[str, Any]:
    """What it is when it is no longer Creating or Updating."""
    moving = ("Creating", "Updating", "RollingBack")
    until(lambda: status(sagemaker, name) not in moving, f"{name} comes to rest", 90)
    return dict(sagemaker.describe_endpoint(EndpointName=name))


def ask(emulator: Emulator, name: str, do: dict[str, Any], **more: Any) -> Any:
    runtime = emulator.client("sagemaker-runtime", max_pool_connections=_CLIENTS)
    return json.load(runtime.invoke_endpoint(EndpointName=name, Body=json.dumps({"do": do}), **more)["Body"])


def instances(emulator: Emulator, name: str) -> set[str]:
    """What runs for an endpoint: files that are there while a container is."""
    state = emulator.log_file.with_name("state")
    return {file.stem for file in state.rglob(f"instances/bloomery-{name}-*.json")}


def serving(emulator: Emulator, name: str) -> str:
    """The configuration that answers."""
    return str(ask(emulator, name, {"environment": True})["CONFIG"])


class Traffic:
    """Clients that ask without a pause for as long as the block lasts; some requests take their time."""

    def __init__(self, emulator: Emulator, name: str) -> None:
        self._emulator, self._name = emulator, name
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(_CLIENTS)]
        self.answered: Counter[str] = Counter()  # by configuration
        self.errors: list[Exception] = []

    def __enter__(self) -> Traffic:
        ask(self._emulator, self._name, {})  # clients are made one at a time
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            try:
                found = ask(self._emulator, self._name, {"environment": True, "sleep": 0.3 if number % 2 else 0.01})
                self.answered[found["CONFIG"]] += 1
            except Exception as error:
                self.errors.append(error)


def test_an_update_loses_no_request(emulator: Emulator, sagemaker: Any) -> None:
    old, new = configure(sagemaker), configure(sagemaker, {"AllTraffic": {"InitialInstanceCount": 2}}, SLOW_START="1")
    name = start(sagemaker, old)
    before = instances(emulator, name)
    with Traffic(emulator, name) as traffic:
        until(lambda: traffic.answered[old] > 20, "the old configuration answers")
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new)
        found = settled(sagemaker, name)
        until(lambda: traffic.answered[new] > 20, "the new configuration answers")
    assert traffic.errors == []
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", new)
    assert found["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    assert "PendingDeploymentSummary" not in found
    assert {serving(emulator, name) for _ in range(10)} == {new}
    assert len(instances(emulator, name)) == 2
    assert not instances(emulator, name) & before


def test_a_configuration_that_cannot_serve_is_rolled_back_and_loses_no_request(
    emulator: Emulator, sagemaker: Any
) -> None:
    old = configure(sagemaker)
    bad = configure(sagemaker, {"good": {}, "bad": {"InitialInstanceCount": 2}}, SLOW_START="1", DIE_AT_START="3")
    name = start(sagemaker, old)
    before = instances(emulator, name)
    with Traffic(emulator, name) as traffic:
        until(lambda: traffic.answered[old] > 20, "the old configuration answers")
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=bad)
        found = settled(sagemaker, name)
        answered = traffic.answered[old]
        until(lambda: traffic.answered[old] > answered + 20, "the old configuration still answers")
    assert traffic.errors == []
    assert list(traffic.answered) == [old]
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", old)
    assert "did not pass the ping health check" in found["FailureReason"]
    assert instances(emulator, name) == before
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=configure(sagemaker))
    assert "FailureReason" not in sagemaker.describe_endpoint(EndpointName=name)
    assert "FailureReason" not in settled(sagemaker, name)


def test_a_stream_ends_before_its_instance_does(emulator: Emulator, sagemaker: Any, tmp_path: Path) -> None:
    old, new = configure(sagemaker), configure(sagemaker)
    name = start(sagemaker, old)
    body = json.dumps({"do": {"stream": ["one ", "two ", "three"], "gate": str(tmp_path)}})
    answer = emulator.client("sagemaker-runtime").invoke_endpoint_with_response_stream(EndpointName=name, Body=body)
    with contextlib.closing(answer["Body"]) as events:
        pieces = (event["PayloadPart"]["Bytes"] for event in events)
        assert next(pieces) == b"one "
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new)
        emulator.wait_for(f"endpoint {name}: ending the old instances")
        assert serving(emulator, name) == new
        assert status(sagemaker, name) == "Updating"
        for gate in ("1", "2"):
            (tmp_path / gate).touch()
        assert b"".join(pieces) == b"two three"
    assert settled(sagemaker, name)["EndpointConfigName"] == new
    assert len(instances(emulator, name)) == 1


def test_an_asynchronous_invocation_is_finished_by_the_instance_that_has_it(emulator: Emulator, sagemaker: Any) -> None:
    s3 = emulator.client("s3")
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    output = {"OutputConfig": {"S3OutputPath": f"s3://{bucket}/out"}}
    old, new = (configure(sagemaker, asynchronous=output) for _ in range(2))
    name = start(sagemaker, old)
    s3.put_object(Bucket=bucket, Key="in", Body=json.dumps({"do": {"environment": True, "sleep": 2}}))
    runtime = emulator.client("sagemaker-runtime")

    def asked() -> str:
        answer = runtime.invoke_endpoint_async(EndpointName=name, InputLocation=f"s3://{bucket}/in")
        return str(answer["OutputLocation"]).removeprefix(f"s3://{bucket}/")

    def answered(key: str) -> Any:
        found = s3.list_objects_v2(Bucket=bucket, Prefix=key)
        return "Contents" in found and json.load(s3.get_object(Bucket=bucket, Key=key)["Body"])

    first = asked()
    until(lambda: f"asked to {json.dumps({'environment': True, 'sleep': 2})}" in logged(emulator, name), "it is asked")
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new)
    settled(sagemaker, name)
    assert until(lambda: answered(first), "it is answered")["CONFIG"] == old
    second = asked()
    assert until(lambda: answered(second), "the next one, too")["CONFIG"] == new


def policy(kind: str, size: str | None = None, value: int = 50, wait: int = 0, termination: int = 0) -> dict[str, Any]:
    """A BlueGreenUpdatePolicy."""
    routing: dict[str, Any] = {"Type": kind, "WaitIntervalInSeconds": wait}
    if size:
        routing[size] = {"Type": "CAPACITY_PERCENT", "Value": value}
    return {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": termination}


def rolling(value: int, wait: int = 0) -> dict[str, Any]:
    """A RollingUpdatePolicy."""
    return {"MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": value}, "WaitIntervalInSeconds": wait}


def shares(emulator: Emulator, name: str, old: str, new: str) -> Counter[str]:
    found = Counter(serving(emulator, name) for _ in range(100))
    assert set(found) <= {old, new}
    return found


def test_a_canary_gets_its_share_and_an_alarm_takes_it_back(emulator: Emulator, sagemaker: Any) -> None:
    cloudwatch = emulator.client("cloudwatch")
    alarm = f"alarm-{uuid.uuid4().hex[:8]}"
    cloudwatch.put_metric_alarm(
        AlarmName=alarm,
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="OK", StateReason="a test")
    old, new = configure(sagemaker), configure(sagemaker)
    name = start(sagemaker, old)
    deployment = {
        "BlueGreenUpdatePolicy": policy("CANARY", "CanarySize", 50, wait=600),
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]},
    }
    with Traffic(emulator, name) as traffic:
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new, DeploymentConfig=deployment)
        until(lambda: traffic.answered[new], "the canary answers", 60)
        found = sagemaker.describe_endpoint(EndpointName=name)
        (pending,) = found["PendingDeploymentSummary"]["ProductionVariants"]
        assert pending["VariantStatus"][0]["Status"] == "Baking"
        counted = shares(emulator, name, old, new)
        assert 20 <= counted[new] <= 80  # six standard deviations
        cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="a test")
        found = settled(sagemaker, name)
        assert shares(emulator, name, old, new) == {old: 100}
    assert traffic.errors == []
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", old)
    assert alarm in found["FailureReason"]

    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new, DeploymentConfig=deployment)
    assert alarm in settled(sagemaker, name)["FailureReason"]  # it is on still: nothing begins


@pytest.mark.full
def test_errors_of_a_canary_take_it_back_by_themselves(emulator: Emulator, sagemaker: Any) -> None:
    old, new = configure(sagemaker), configure(sagemaker, STATUS="500")
    name = start(sagemaker, old)
    alarm = f"alarm-{uuid.uuid4().hex[:8]}"
    emulator.client("cloudwatch").put_metric_alarm(
        AlarmName=alarm,
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=[{"Name": "EndpointName", "Value": name}, {"Name": "VariantName", "Value": "AllTraffic"}],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
    )
    deployment = {
        "BlueGreenUpdatePolicy": policy("CANARY", "CanarySize", 30, wait=600),
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]},
    }
    with Traffic(emulator, name) as traffic:
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new, DeploymentConfig=deployment)
        found = settled(sagemaker, name)
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", old)
    assert alarm in found["FailureReason"]
    assert traffic.errors  # the canary's own answers
    assert all("Received server error (500)" in str(error) for error in traffic.errors)


def test_linear_steps_wait_and_the_old_instances_stay_as_long_as_they_should(
    emulator: Emulator, sagemaker: Any
) -> None:
    old, new = configure(sagemaker), configure(sagemaker)
    name = start(sagemaker, old)
    before = instances(emulator, name)
    deployment = {"BlueGreenUpdatePolicy": policy("LINEAR", "LinearStepSize", 50, wait=1, termination=600)}
    with Traffic(emulator, name) as traffic:
        until(lambda: traffic.answered[old], "the old configuration answers")
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new, DeploymentConfig=deployment)
        emulator.wait_for(f"endpoint {name}: 50% of the requests go to {new}")
        emulator.wait_for(f"endpoint {name}: waiting before the old instances are ended")
        assert shares(emulator, name, old, new) == {new: 100}
        assert before < instances(emulator, name)
        assert status(sagemaker, name) == "Updating"
    assert traffic.errors == []
    sagemaker.delete_endpoint(EndpointName=name)  # while it is updated
    until(lambda: not instances(emulator, name), "nothing of it runs", 60)
    with pytest.raises(ClientError, match="Could not find endpoint"):
        until(lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] != "Deleting", "gone")


def test_rolling_replaces_batch_by_batch(emulator: Emulator, sagemaker: Any) -> None:
    four = {"AllTraffic": {"InitialInstanceCount": 4}}
    old, new = configure(sagemaker, four), configure(sagemaker, four)
    name = start(sagemaker, old)
    most = 0
    with Traffic(emulator, name) as traffic:
        sagemaker.update_endpoint(
            EndpointName=name, EndpointConfigName=new, DeploymentConfig={"RollingUpdatePolicy": rolling(2)}
        )
        while status(sagemaker, name) == "Updating":
            most = max(most, len(instances(emulator, name)))
        found = settled(sagemaker, name)
        until(lambda: traffic.answered[new] > 20, "the new configuration answers")
    assert traffic.errors == []
    assert most <= 6
    assert (found["EndpointConfigName"], len(instances(emulator, name))) == (new, 4)
    assert found["LastDeploymentConfig"] == {"RollingUpdatePolicy": rolling(2)}
    emulator.wait_for(f"endpoint {name}: 50% of the requests go to {new}")

    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=old, RetainDeploymentConfig=True)
    found = settled(sagemaker, name)
    assert (found["EndpointConfigName"], found["LastDeploymentConfig"]) == (old, {"RollingUpdatePolicy": rolling(2)})
    emulator.wait_for(f"endpoint {name}: 50% of the requests go to {old}")


def test_weights_share_the_requests(emulator: Emulator, sagemaker: Any) -> None:
    config = configure(sagemaker, {"one": {"InitialVariantWeight": 1}, "two": {"InitialVariantWeight": 0}})
    name = start(sagemaker, config)
    runtime = emulator.client("sagemaker-runtime")

    def counted(calls: int) -> Counter[str]:
        answers = (runtime.invoke_endpoint(EndpointName=name, Body=b"x") for _ in range(calls))
        return Counter(answer["InvokedProductionVariant"] for answer in answers if answer["Body"].read())

    assert counted(20) == {"one": 20}
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=name, DesiredWeightsAndCapacities=[{"VariantName": "two", "DesiredWeight": 3}]
    )
    found = counted(400)  # at once
    # 100 are expected, the standard deviation is 8.7: outside of this once in 10 million runs.
    assert 53 <= found["one"] <= 150
    assert found["two"] == 400 - found["one"]
    weights = {each["VariantName"]: each["CurrentWeight"] for each in settled(sagemaker, name)["ProductionVariants"]}
    assert weights == {"one": 1.0, "two": 3.0}
    answer = runtime.invoke_endpoint(EndpointName=name, Body=b"x", TargetVariant="one")
    assert (answer["InvokedProductionVariant"], answer["Body"].read()) == ("one", b"x")


def test_capacities_change_under_load_and_are_retained_by_an_update(emulator: Emulator, sagemaker: Any) -> None:
    config = configure(sagemaker)
    name = start(sagemaker, config)

    def count() -> tuple[int, int]:
        (variant,) = sagemaker.describe_endpoint(EndpointName=name)["ProductionVariants"]
        return variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]

    def scale(wanted: int) -> None:
        wish = {"VariantName": "AllTraffic", "DesiredInstanceCount": wanted}
        sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=[wish])

    with Traffic(emulator, name) as traffic:
        scale(3)
        settled(sagemaker, name)
        assert (count(), len(instances(emulator, name))) == ((3, 3), 3)
        scale(2)
        settled(sagemaker, name)
        assert (count(), len(instances(emulator, name))) == ((2, 2), 2)
        other = configure(sagemaker)
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=other, RetainAllVariantProperties=True)
        settled(sagemaker, name)
        assert (count(), len(instances(emulator, name))) == ((2, 2), 2)
        sagemaker.update_endpoint(
            EndpointName=name,
            EndpointConfigName=config,
            RetainAllVariantProperties=True,
            ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredInstanceCount"}],
        )
        settled(sagemaker, name)
        assert (count(), len(instances(emulator, name))) == ((1, 1), 1)
    assert traffic.errors == []


@pytest.mark.full
def test_kill_9_while_updating_leaves_the_old_configuration(tmp_path: Path) -> None:
    with emulating(tmp_path / "state", *ECHO_IMAGE) as emulator:
        sagemaker = emulator.client("sagemaker")
        old, new = configure(sagemaker), configure(sagemaker, SLOW_START="1000")
        name = start(sagemaker, old)
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new)
        until(lambda: len(instances(emulator, name)) == 2, "the new instance is started")
        emulator.kill()
    with emulating(tmp_path / "state", *ECHO_IMAGE) as emulator:
        sagemaker = emulator.client("sagemaker")
        found = settled(sagemaker, name)
        assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", old)
        assert "PendingDeploymentSummary" not in found
        assert serving(emulator, name) == old
        assert len(instances(emulator, name)) == 1
