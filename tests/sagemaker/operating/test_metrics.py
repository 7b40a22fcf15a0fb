"""What CloudWatch answers, as AWS does it: moto has no percentiles, so a stand-in gives them here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bloomery.sagemaker.operating.metrics import Latency, of_component, of_variant

NOON = datetime(2026, 11, 24, 12, 0, 20, tzinfo=UTC)


class CloudWatch:
    """A session that knows of 40 invocations. It refuses what CloudWatch refuses."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def call(self, service: str, operation: str, **given: Any) -> Any:
        assert (service, operation) == ("cloudwatch", "GetMetricStatistics")
        assert ("Statistics" in given) != ("ExtendedStatistics" in given)
        assert given["Period"] % 60 == 0
        self.asked.append(given)
        point: dict[str, Any] = {"Timestamp": given["StartTime"], "Unit": "None"}
        if given["MetricName"] == "ModelLatency":
            if "ExtendedStatistics" in given:
                return {"Datapoints": [{**point, "ExtendedStatistics": {"p50": 120_000.0, "p90": 900_000.0}}]}
            return {"Datapoints": [{**point, "Average": 300_000.0, "Maximum": 2_500_000.0}]}
        counts = {"Invocations": 40.0, "Invocation4XXErrors": 2.0}
        return {"Datapoints": [{**point, "Sum": counts[given["MetricName"]]}] if given["MetricName"] in counts else []}


def test_percentiles_and_counts_of_a_variant() -> None:
    session: Any = CloudWatch()
    found = of_variant(session, "bloom", "AllTraffic", NOON)
    assert (found.what, found.invocations, found.client_errors, found.server_errors) == ("AllTraffic", 40, 2, 0)
    assert found.latency == Latency(mean=0.3, p50=0.12, p90=0.9, most=2.5)
    for asked in session.asked:
        assert asked["EndTime"] - asked["StartTime"] == timedelta(minutes=15)
        assert asked["EndTime"] > NOON
        assert {each["Name"]: each["Value"] for each in asked["Dimensions"]} == {
            "EndpointName": "bloom",
            "VariantName": "AllTraffic",
        }


def test_a_component_has_a_dimension_of_its_own() -> None:
    session: Any = CloudWatch()
    of_component(session, "part", NOON)
    assert session.asked[0]["Dimensions"] == [{"Name": "InferenceComponentName", "Value": "part"}]
