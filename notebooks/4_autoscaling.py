# %% [markdown]
# # 4 · Autoscaling, asynchronous, scale to zero
#
# Three endpoints that follow their load: instances that follow the requests in flight; a queue whose instances come and
# go with it; and a model whose copies go to nothing while nobody asks, and come back when somebody does.
#
# **Cost:** with `TARGET = "local"` nothing. With `TARGET = "aws"` one to two `ml.g5.xlarge` for about an hour, because
# AWS waits some minutes before it takes an instance away; the notebook prints the price and asks first.
#
# **Before the first cell:** what [README.md](README.md#run-one) installs, and for the target `local`
# `bloomery sagemaker-local --scaler-period 1` in a terminal, so that its scaler looks every second. Tested with
# bloomery 0.1.0, boto3 1.44.5, transformers 5.23.0.

# %% tags=["parameters"]
TARGET = "local"  # or "aws": your own account
REGION = "us-east-1"
NAME = "scaling"  # the endpoints are called NAME-instances, NAME-queue and NAME-copies
CHECKPOINT = "../models/shakespeare-bloom"  # a directory, or s3://…
INSTANCE_TYPE = "ml.g5.xlarge"
FOLDER = None  # s3://bucket/prefix/ of this notebook alone: the clean-up empties it; None: in the default bucket
ROLE = None  # name or ARN of an execution role; None: the one that this notebook runs with
CLIENTS = 4  # that ask at the same time
COOLDOWN = 0  # seconds between two changes; on AWS 300 keeps instances from coming and going

# %% tags=["set-up"]
import os
import sys

from bloomery.sagemaker import Session, default_bucket, ensure_bucket

session = Session.open(TARGET, region=REGION)
os.environ.update(session.variables)  # uploads, too, go where the session goes
folder = FOLDER or f"{default_bucket(session)}bloomery-notebooks/{NAME}/"
ensure_bucket(session, folder)
print(f"{session.target}: account {session.account}, {session.region}, {folder}")

# %% [markdown]
# ## The price, and the checkpoint
# On AWS an endpoint costs from "Creating" on, and two instances cost twice as much.

# %%
from bloomery.checkpoints import upload
from bloomery.sagemaker import Prices

price = Prices(session).of(INSTANCE_TYPE)
print(f"{INSTANCE_TYPE}: {price.per_hour} USD per hour and instance ({price.source})")
if TARGET == "aws" and input("Make endpoints? yes or no: ") != "yes":
    raise SystemExit("nothing was made")
checkpoint = CHECKPOINT if CHECKPOINT.startswith("s3://") else upload(CHECKPOINT, f"{folder}checkpoint/").uri

# %% [markdown]
# ## 1. Instances follow the requests
# From 1 to 2 instances, so that each has 1 request in flight, a metric that SageMaker takes every ten seconds.
# `bloomery autoscale` does the same from a terminal.

# %%
from bloomery.sagemaker import AsyncOutput, Bounds, Deployment, Endpoint, Teller, autoscaling

wanted = Deployment(f"{NAME}-instances", (INSTANCE_TYPE,), checkpoint=checkpoint, role=ROLE)
instances = Endpoint.deploy(wanted, session, tell=Teller(sys.stdout))
follow = autoscaling.planned(session, instances.name, Bounds(1, 2, 1.0, COOLDOWN, COOLDOWN))
autoscaling.put_in_force(session, follow)
print("\n".join(request.operation for request in follow.requests()))

# %% [markdown]
# Clients that ask without a pause, until the second instance is there.

# %%
from bloomery.bench.api import under_load
from bloomery.sagemaker import until_count

BODY = {"inputs": "To be, or", "parameters": {"max_new_tokens": 32}}

with under_load(lambda: instances.invoke(BODY), CLIENTS):
    until_count(session, instances.name, 2, seen=print)
for activity in autoscaling.shown(session, instances.name)[0].activities:
    print(f"{activity.at:%H:%M:%S} {activity.what} ({activity.status})")
print("removed:", ", ".join(instances.delete().removed))

# %% [markdown]
# ## 2. A queue
# An asynchronous endpoint answers to S3. Its instances follow what waits in the queue, down to none: what comes then
# waits until an alarm has woken the first one.

# %%
wanted = Deployment(
    f"{NAME}-queue",
    (INSTANCE_TYPE,),
    checkpoint=checkpoint,
    async_output=AsyncOutput(f"{folder}answers/", f"{folder}failures/"),
    role=ROLE,
)
queue = Endpoint.deploy(wanted, session, tell=Teller(sys.stdout))
print(queue.invoke_async(BODY).result().decode())

# %%
follow = autoscaling.planned(session, queue.name, Bounds(0, 1, 4.0, COOLDOWN, COOLDOWN))
autoscaling.put_in_force(session, follow)
until_count(session, queue.name, 0, seen=print)
print(queue.invoke_async(BODY).result().decode())
print("removed:", ", ".join(queue.delete().removed))

# %% [markdown]
# ## 3. Copies, down to nothing
# A model that answers at once can go to nothing as an inference component: copies are put on the instances of an
# endpoint that has no model of its own, and SageMaker takes away instances that have none.

# %%
from bloomery.sagemaker import prepare

name = f"{NAME}-copies"
(model, *_) = prepare(session, Deployment(name, (INSTANCE_TYPE,), checkpoint=checkpoint, role=ROLE)).requests()
session.send(model)
variant = {
    "VariantName": "AllTraffic",
    "InstanceType": INSTANCE_TYPE,
    "InitialInstanceCount": 1,
    "ManagedInstanceScaling": {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 1},
    "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
}
session.call(
    "sagemaker",
    "CreateEndpointConfig",
    EndpointConfigName=name,
    ExecutionRoleArn=model.parameters["ExecutionRoleArn"],
    ProductionVariants=[variant],
)
session.call("sagemaker", "CreateEndpoint", EndpointName=name, EndpointConfigName=name)
copies = Endpoint(name, session).wait(Teller(sys.stdout))
session.call(
    "sagemaker",
    "CreateInferenceComponent",
    InferenceComponentName=name,
    EndpointName=name,
    VariantName="AllTraffic",
    Specification={
        "ModelName": name,
        "ComputeResourceRequirements": {"NumberOfAcceleratorDevicesRequired": 1, "MinMemoryRequiredInMb": 1024},
    },
    RuntimeConfig={"CopyCount": 1},
)
until_count(session, name, 1, seen=print)
print(copies.invoke(BODY, inference_component=name).text)

# %% [markdown]
# Nobody asks: the copy goes. The first request after that fails at once, and wakes it; clients have to try again.

# %%
from bloomery.errors import SageMakerError

follow = autoscaling.planned(session, name, Bounds(0, 1, 1.0, COOLDOWN, COOLDOWN))
autoscaling.put_in_force(session, follow)
until_count(session, name, 0, seen=print)
try:
    copies.invoke(BODY, inference_component=name)
except SageMakerError as refusal:
    print(refusal)
until_count(session, name, 1, seen=print)
print(copies.invoke(BODY, inference_component=name).text)

# %% [markdown]
# ## Clean up
# Run this cell at the end, and after any failure. In a fresh kernel run the two cells at the top first. It removes the
# endpoints with their scaling, components, configurations and models, and everything below the notebook's folder in S3;
# what is gone is no error.

# %% tags=["clean-up"]
from bloomery.sagemaker import prefix, remove

for each in ("instances", "queue", "copies"):
    remove(session, f"{NAME}-{each}", seen=print)
print(f"{folder}: {prefix.delete(session, prefix.below(session, folder))} objects removed")
session.close()
