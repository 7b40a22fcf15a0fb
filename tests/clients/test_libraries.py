"""Libraries that people call endpoints with: langchain-aws's class, and the SageMaker SDK (v2) with our shim."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from tests.clients.conftest import IMAGE, REGION, Client
from tests.support.emulator import REPOSITORY, ROLE, Emulator

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]

_LANGCHAIN = """
import json
from langchain_aws import SagemakerEndpoint
from langchain_aws.llms.sagemaker_endpoint import LLMContentHandler

class Content(LLMContentHandler):
    content_type = accepts = "application/json"
    def transform_input(self, prompt, model_kwargs):
        return json.dumps({"inputs": prompt, "parameters": model_kwargs}).encode()
    def transform_output(self, output):
        text = output.read().decode() if hasattr(output, "read") else output.decode()
        return json.loads(text)[0]["generated_text"]

class Streamed(Content):
    def transform_input(self, prompt, model_kwargs):
        return json.dumps({"inputs": prompt, "parameters": model_kwargs, "stream": True}).encode()
    def transform_output(self, output):
        return json.loads(output)["outputs"][0]

def endpoint(handler, **more):
    return SagemakerEndpoint(endpoint_name="demo", region_name="us-east-1", content_handler=handler,
                             model_kwargs={"max_new_tokens": 6}, **more)

print(json.dumps({"answer": endpoint(Content()).invoke("To be, or"),
                  "pieces": list(endpoint(Streamed(), streaming=True).stream("To be, or"))}))
"""

_SDK = """
import json, tarfile, boto3, sagemaker
from sagemaker.serializers import JSONSerializer
from sagemaker.deserializers import JSONDeserializer

session = sagemaker.Session()
bucket = session.default_bucket()
with tarfile.open("model.tar.gz", "w:gz") as tar:
    tar.add("serving.properties")
data = session.upload_data("model.tar.gz", bucket, "code")
model = sagemaker.Model(image_uri={image!r}, model_data=data, role=sagemaker.get_execution_role(), name="sdk",
                        predictor_cls=sagemaker.Predictor, sagemaker_session=session)
predictor = model.deploy(1, "ml.g5.12xlarge", endpoint_name="sdk", serializer=JSONSerializer(),
                         deserializer=JSONDeserializer(), container_startup_health_check_timeout=240)
answer = predictor.predict({{"inputs": "To be", "parameters": {{"max_new_tokens": 3}}}})
predictor.delete_endpoint()
model.delete_model()
print()  # the SDK's progress dashes end without a line break
print(json.dumps({{"bucket": bucket, "account": session.account_id(), "answer": answer}}))
"""


def serving_properties(tensor_parallel: int = 1) -> str:
    """Of a model whose checkpoint is in the emulator's S3."""
    return f"engine=DeepSpeed\noption.tensor_parallel_degree={tensor_parallel}\noption.s3url=s3://shakespeare/model/\n"


@pytest.fixture(scope="module")
def checkpoint(emulator: Emulator) -> None:
    """The demonstration model as s3://shakespeare/model/."""
    s3 = boto3.client("s3", **_access(emulator))
    s3.create_bucket(Bucket="shakespeare")
    for path in (REPOSITORY / "models" / "shakespeare-bloom").iterdir():
        s3.upload_file(str(path), "shakespeare", f"model/{path.name}")
    s3.close()


@pytest.fixture(scope="module")
def endpoint(emulator: Emulator, checkpoint: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint ``demo``, in service."""
    directory = tmp_path_factory.mktemp("code")
    (directory / "serving.properties").write_text(serving_properties())
    with tarfile.open(directory / "model.tar.gz", "w:gz") as tar:
        tar.add(directory / "serving.properties", "serving.properties")
    s3, sagemaker = (boto3.client(name, **_access(emulator)) for name in ("s3", "sagemaker"))
    s3.upload_file(str(directory / "model.tar.gz"), "shakespeare", "code/model.tar.gz")
    container = {"Image": IMAGE, "ModelDataUrl": "s3://shakespeare/code/model.tar.gz"}
    sagemaker.create_model(ModelName="demo", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {"VariantName": "a", "ModelName": "demo", "InstanceType": "ml.g5.12xlarge", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="demo", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="demo", EndpointConfigName="demo")
    waiter = sagemaker.get_waiter("endpoint_in_service")
    waiter.wait(EndpointName="demo", WaiterConfig={"Delay": 1, "MaxAttempts": 240})
    yield "demo"
    sagemaker.delete_endpoint(EndpointName="demo")
    s3.close(), sagemaker.close()


def test_langchain_invokes_and_streams(client: Client, endpoint: str) -> None:
    told = json.loads(client.run("python", "-c", _LANGCHAIN).splitlines()[-1])
    assert told["answer"]
    assert len(told["pieces"]) == 6
    assert told["answer"].endswith("".join(told["pieces"]))


def test_the_sagemaker_sdk_deploys_and_predicts(client: Client, checkpoint: None) -> None:
    (client.directory / "serving.properties").write_text(serving_properties())
    told = json.loads(client.run("python", "-W", "ignore", "-c", _SDK.format(image=IMAGE)).splitlines()[-1])
    assert told["account"] == "123456789012"
    assert told["bucket"] == "sagemaker-us-east-1-123456789012"
    assert told["answer"][0]["generated_text"]


def test_the_shim_leaves_other_addresses_alone(client: Client, tmp_path: Path) -> None:
    script = (
        "import boto3; print(boto3.client('s3', endpoint_url='https://s3.us-east-1.amazonaws.com').meta.endpoint_url)"
    )
    assert client.run("python", "-c", script).strip() == "https://s3.us-east-1.amazonaws.com"


def _access(emulator: Emulator) -> dict[str, str]:
    return {
        "endpoint_url": emulator.url,
        "aws_access_key_id": "bloomery-local",
        "aws_secret_access_key": "bloomery-local",
        "region_name": REGION,
    }
