from __future__ import annotations

import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.support.emulator import ROLE, Emulator


@pytest.fixture
def sagemaker(control: Emulator) -> Any:
    return control.client("sagemaker")


@pytest.fixture
def archive(control: Emulator, name: str) -> str:
    s3 = control.client("s3")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    s3.put_object(Bucket=name, Key="code/model.tar.gz", Body=b"bytes")
    return f"s3://{name}/code/model.tar.gz"


def test_a_model_is_described_as_it_was_given(sagemaker: Any, archive: str, name: str) -> None:
    container = {"Image": "djl-inference:0.19.0", "ModelDataUrl": archive, "Environment": {"OPTION_DTYPE": "fp16"}}
    created = sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container, EnableNetworkIsolation=True
    )
    described = sagemaker.describe_model(ModelName=name)
    assert created["ModelArn"] == described["ModelArn"] == f"arn:aws:sagemaker:us-west-2:123456789012:model/{name}"
    assert described["PrimaryContainer"] == {**container, "Mode": "SingleModel"}
    assert described["ExecutionRoleArn"] == ROLE
    assert described["EnableNetworkIsolation"] is True
    age = datetime.datetime.now(datetime.UTC) - described["CreationTime"]
    assert abs(age) < datetime.timedelta(minutes=5)


def test_an_archive_that_is_not_there_is_named(sagemaker: Any, archive: str, name: str) -> None:
    absent = archive.replace("model.tar.gz", "other.tar.gz")
    with pytest.raises(ClientError, match=f"Could not find model data at {absent}"):
        sagemaker.create_model(
            ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "i", "ModelDataUrl": absent}
        )
    with pytest.raises(ClientError, match="Could not find model"):
        sagemaker.describe_model(ModelName=name)


def test_a_bucket_that_is_not_there_is_named(sagemaker: Any, name: str) -> None:
    absent = f"s3://no-{name}/model.tar.gz"
    with pytest.raises(ClientError, match=f"Could not find model data at {absent}"):
        sagemaker.create_model(
            ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "i", "ModelDataUrl": absent}
        )


def test_an_uncompressed_prefix_needs_one_object_below_it(sagemaker: Any, archive: str, name: str) -> None:
    def create(prefix: str) -> None:
        source = {"S3Uri": prefix, "S3DataType": "S3Prefix", "CompressionType": "None"}
        container = {"Image": "i", "ModelDataSource": {"S3DataSource": source}}
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)

    with pytest.raises(ClientError, match=f"Could not find model data at s3://{name}/other/"):
        create(f"s3://{name}/other/")
    create(f"s3://{name}/code/")


def test_a_name_is_taken_once_whatever_its_case(sagemaker: Any, name: str) -> None:
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "i"})
    with pytest.raises(ClientError) as caught:
        sagemaker.create_model(ModelName=name.upper(), PrimaryContainer={"Image": "i"})
    arn = f"arn:aws:sagemaker:us-west-2:123456789012:model/{name}"
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert caught.value.response["Error"]["Message"] == f'Cannot create already existing model "{arn}".'


def test_a_deleted_model_is_gone_and_its_name_free(sagemaker: Any, name: str) -> None:
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "i"})
    sagemaker.delete_model(ModelName=name)
    arn = f"arn:aws:sagemaker:us-west-2:123456789012:model/{name}"
    for operation in (sagemaker.describe_model, sagemaker.delete_model):
        with pytest.raises(ClientError) as caught:
            operation(ModelName=name)
        assert caught.value.response["Error"]["Message"] == f'Could not find model "{arn}".'
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "i"})


def test_a_list_of_one_container_is_a_model_too(sagemaker: Any, name: str) -> None:
    sagemaker.create_model(ModelName=name, Containers=[{"Image": "i"}])
    described = sagemaker.describe_model(ModelName=name)
    assert described["Containers"] == [{"Image": "i", "Mode": "SingleModel"}]
    assert "PrimaryContainer" not in described
