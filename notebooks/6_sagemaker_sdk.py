# %% [markdown]
# # 6 · The same deployment through the SageMaker Python SDK
#
# For users who live in the SDK. It is not needed: bloomery's own calls, in the other notebooks, are plain boto3.
#
# **Which SDK:** version 2, pinned, in an environment of its own. A bare `pip install sagemaker` brings version 3, in
# which `sagemaker.Session`, `Model` and `Predictor` are gone; version 2 wants older packages than bloomery. AWS
# supports version 2 until July 2027.
#
# ```
# python -m venv .venv-clients
# .venv-clients/bin/pip install -r ../tests/clients/requirements.txt     # sagemaker 2.257.7, boto3 1.44.8, ipykernel
# bloomery sagemaker-local                                               # in another terminal, for the target local
# eval "$(bloomery sagemaker-local env --sdk)"                           # then start Jupyter from here
# ```
#
# **Cost:** with `TARGET = "local"` nothing; it takes about a minute. With `TARGET = "aws"` one `ml.g5.12xlarge` for
# about 20 minutes; the notebook shows the price per hour and asks before it makes anything.

# %% tags=["parameters"]
TARGET = "local"  # or "aws": your own account
NAME = "sagemaker-sdk"  # of the endpoint, its configuration and its model
CODE = "../code"  # serving.properties, model.py, requirements.txt
CHECKPOINT = "../models/shakespeare-bloom"
INSTANCE_TYPE = "ml.g5.12xlarge"
PRICE_PER_HOUR = 7.09  # USD, of the above in us-east-1 on demand; look it up for your region
TENSOR_PARALLEL = 2
IMAGE = "bloomery:0.1.0"  # on AWS the URI of your image in ECR
ROLE = "arn:aws:iam::123456789012:role/bloomery-local"  # on AWS the ARN of an execution role

# %% tags=["set-up"]
import os

os.environ["SAGEMAKER_SUPPRESS_V2_WARNING"] = "1"

import sagemaker

session = sagemaker.Session()
url = session.sagemaker_client.meta.endpoint_url
if url.startswith("http://127.0.0.1") != (TARGET == "local"):
    raise SystemExit(f"TARGET is {TARGET!r}, but the SDK talks to {url}: see 'Which SDK', above")
bucket = session.default_bucket()
prefix = f"bloomery-notebooks/{NAME}/"
folder = f"s3://{bucket}/{prefix}"
print(f"sagemaker {sagemaker.__version__}: {url}, account {session.account_id()}, {folder}")

# %% [markdown]
# ## The price, first
# On AWS an endpoint costs from "Creating" on, whether anybody asks it or not.

# %%
print(
    f"{INSTANCE_TYPE}: {PRICE_PER_HOUR} USD per hour" + ("; this emulator costs nothing" if TARGET == "local" else "")
)
if TARGET == "aws" and input("Make an endpoint? yes or no: ") != "yes":
    raise SystemExit("nothing was made")

# %% [markdown]
# ## Archive and checkpoint
# Code only in the archive: its files at the top, without caches. `bloomery package` does the same and checks it. The
# weights go to S3 as they are.

# %%
import tarfile
import tempfile
from pathlib import Path

from sagemaker.s3 import S3Uploader

with tempfile.TemporaryDirectory() as scratch:
    with tarfile.open(Path(scratch) / "model.tar.gz", "w:gz") as tar:
        for each in ("serving.properties", "model.py", "requirements.txt"):
            tar.add(Path(CODE) / each, each)
    model_data = S3Uploader.upload(f"{scratch}/model.tar.gz", f"{folder}code", sagemaker_session=session)
checkpoint = S3Uploader.upload(CHECKPOINT, f"{folder}checkpoint", sagemaker_session=session)
print(model_data, checkpoint)

# %% [markdown]
# ## Deploy
# Both time-outs are those of the published walk-through. While it waits, the SDK shows dashes: `bloomery logs` shows
# what the container says meanwhile.

# %%
from sagemaker.deserializers import JSONDeserializer
from sagemaker.serializers import JSONSerializer

model = sagemaker.Model(
    image_uri=IMAGE,
    model_data=model_data,
    role=ROLE,
    name=NAME,
    env={"OPTION_MODEL_ID": f"{checkpoint}/", "TENSOR_PARALLEL_DEGREE": str(TENSOR_PARALLEL)},
    predictor_cls=sagemaker.Predictor,
    sagemaker_session=session,
)
predictor = model.deploy(
    initial_instance_count=1,
    instance_type=INSTANCE_TYPE,
    endpoint_name=NAME,
    serializer=JSONSerializer(),
    deserializer=JSONDeserializer(),
    model_data_download_timeout=2400,
    container_startup_health_check_timeout=2400,
)

# %% [markdown]
# ## Ask

# %%
BODY = {"inputs": "KING.\nMy lords,", "parameters": {"max_new_tokens": 40, "do_sample": False}}

print(predictor.predict(BODY)[0]["generated_text"])

# %% [markdown]
# As a stream: JSON lines, in pieces that may end anywhere.

# %%
import json

for line in b"".join(predictor.predict_stream({**BODY, "stream": True})).splitlines():
    print(json.loads(line)["outputs"][0], end="")

# %% [markdown]
# ## Clean up
# Run this cell at the end, and after any failure. In a fresh kernel run the two cells at the top first. The SDK's own
# `delete_endpoint` and `delete_model` need the objects that made them; these calls need the name alone.

# %% tags=["clean-up"]
from botocore.exceptions import ClientError

client = session.sagemaker_client
for delete, kind in (
    (client.delete_endpoint, "EndpointName"),
    (client.delete_endpoint_config, "EndpointConfigName"),
    (client.delete_model, "ModelName"),
):
    try:
        delete(**{kind: NAME})
        print(f"{kind} {NAME}: removed")
    except ClientError as error:  # gone already
        print(f"{kind} {NAME}: {error.response['Error']['Message']}")
client.get_waiter("endpoint_deleted").wait(EndpointName=NAME, WaiterConfig={"Delay": 2, "MaxAttempts": 300})
objects = session.boto_session.resource("s3").Bucket(bucket).objects.filter(Prefix=prefix)
print(f"{folder}: {len(list(objects))} objects removed")
_ = objects.delete()
