from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.support.emulator import Emulator


@pytest.fixture
def sagemaker(control: Emulator) -> Any:
    return control.client("sagemaker")


def tags(sagemaker: Any, arn: str) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=arn)["Tags"]}


def test_tags_come_with_their_resource_and_change(sagemaker: Any, name: str) -> None:
    given = [{"Key": "team", "Value": "a"}, {"Key": "cost", "Value": "1"}]
    arn = sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "i"}, Tags=given)["ModelArn"]
    assert tags(sagemaker, arn) == {"team": "a", "cost": "1"}
    added = sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "b"}, {"Key": "x", "Value": ""}])
    assert added["Tags"] == [
        {"Key": "cost", "Value": "1"},
        {"Key": "team", "Value": "b"},
        {"Key": "x", "Value": ""},
    ]
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["team", "absent"])
    assert tags(sagemaker, arn) == {"cost": "1", "x": ""}
    assert "Tags" not in sagemaker.describe_model(ModelName=name)


def test_tags_go_with_their_resource(sagemaker: Any, name: str) -> None:
    for given in ([{"Key": "old", "Value": "1"}], []):
        arn = sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "i"}, Tags=given)["ModelArn"]
        assert tags(sagemaker, arn) == {tag["Key"]: tag["Value"] for tag in given}
        sagemaker.delete_model(ModelName=name)


def test_there_are_at_most_fifty(sagemaker: Any, name: str) -> None:
    arn = sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "i"})["ModelArn"]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": f"k{number}", "Value": ""} for number in range(50)])
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "k7", "Value": "another"}])
    with pytest.raises(ClientError, match="exceeds the limit of 50"):
        sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "one-more", "Value": ""}])
    assert len(tags(sagemaker, arn)) == 50


def test_what_does_not_exist_has_none(sagemaker: Any) -> None:
    arn = "arn:aws:sagemaker:us-west-2:123456789012:model/absent"
    with pytest.raises(ClientError, match="does not exist"):
        sagemaker.list_tags(ResourceArn=arn)
