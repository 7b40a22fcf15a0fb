# %% [markdown]
# # 1 · BLOOM on SageMaker, with DeepSpeed tensor parallelism
#
# From a model directory and a checkpoint to an endpoint that answers, and back to an empty account: package, upload,
# plan, deploy, invoke, stream, verify, measure, pay, delete.
#
# **Cost:** with `TARGET = "local"` nothing; it takes about a minute. With `TARGET = "aws"` one `ml.g5.12xlarge` for
# about 20 minutes; the notebook prints the price per hour and asks before it makes anything.
#
# **Before the first cell:** what [README.md](README.md#run-one) installs, and for the target `local`
# `bloomery sagemaker-local` in a terminal. Tested with bloomery 0.1.0, boto3 1.44.5, transformers 5.23.0.

# %% tags=["parameters"]
TARGET = "local"  # or "aws": your own account
REGION = "us-east-1"
NAME = "bloom-deepspeed"  # of the endpoint, its configuration and its model
CODE = "../code"  # serving.properties, model.py, requirements.txt
CHECKPOINT = "../models/shakespeare-bloom"  # BLOOM's architecture, small enough for a laptop
INSTANCE_TYPE = "ml.g5.12xlarge"  # 4 GPUs; BLOOM-176B in int8 wants the 8 of ml.p4d.24xlarge
TENSOR_PARALLEL = 2  # GPUs that one copy of the model is spread over
FOLDER = None  # s3://bucket/prefix/ of this notebook alone: the clean-up empties it; None: in the default bucket
ROLE = None  # name or ARN of an execution role; None: the one that this notebook runs with
REQUESTS = 30  # that are measured

# %% tags=["set-up"]
import os
import sys

from bloomery.sagemaker import Session, default_bucket, ensure_bucket

session = Session.open(TARGET, region=REGION)
os.environ.update(session.variables)  # uploads and plans, too, go where the session goes
folder = FOLDER or f"{default_bucket(session)}bloomery-notebooks/{NAME}/"
ensure_bucket(session, folder)
print(f"{session.target}: account {session.account}, {session.region}, {folder}")

# %% [markdown]
# ## The price, first
# On AWS an endpoint costs from "Creating" on, whether anybody asks it or not.

# %%
from bloomery.sagemaker import Prices

price = Prices(session).of(INSTANCE_TYPE)
print(f"{INSTANCE_TYPE}: {price.per_hour} USD per hour ({price.source})")
if TARGET == "aws" and input("Make an endpoint? yes or no: ") != "yes":
    raise SystemExit("nothing was made")

# %% [markdown]
# ## Package
# The archive holds code only, a few kilobytes: SageMaker copies and unpacks it before anything can start. The same
# files always make the same bytes. `package` refuses what could not run, and says why.

# %%
import tempfile
from pathlib import Path

from bloomery.sagemaker import package, upload

scratch = tempfile.TemporaryDirectory()
archive = package(CODE, Path(scratch.name) / "model.tar.gz")
model_data = upload(archive, folder, session)
print(f"{model_data}\n{archive.size} bytes: {', '.join(archive.members)}")

# %% [markdown]
# ## Upload the checkpoint
# The weights stay outside the archive. The container fetches them from S3 once it has started.

# %%
from bloomery.checkpoints import upload as upload_checkpoint

report = upload_checkpoint(CHECKPOINT, f"{folder}checkpoint/")
print(f"{report.uri}: {report.sent / 1e6:.1f} MB sent in {report.seconds:.1f} s")

# %% [markdown]
# ## Plan
# What the checkpoint needs, from its headers alone: the weights are not read.

# %%
from bloomery.sagemaker import plan

planned = plan(report.uri, instance_types=[INSTANCE_TYPE], tensor_parallel=TENSOR_PARALLEL, batch=4, length=256)
option = planned.options[0]
print(f"{planned.facts.model_type}, {planned.facts.parameters:,} parameters, licence {planned.licence.name}")
print(f"per GPU: {option.memory.weights / 1e6:.1f} MB of weights, {option.memory.cache / 1e6:.1f} MB of cache")
print(f"{INSTANCE_TYPE}: {'fits' if option.fits else 'is too small'}; loads in about {option.load.expected:.0f} s")
print("\n".join(planned.advice))

# %% [markdown]
# ## Deploy
# Everything that can be known to be wrong is checked before the first call: names, time-outs, quotas, what lies in S3.
# Then the container's own log is shown while it starts.

# %%
from bloomery.sagemaker import Deployment, Endpoint, Teller

wanted = Deployment(
    name=NAME,
    instance_types=(INSTANCE_TYPE,),
    model_data=model_data,
    checkpoint=report.uri,
    tensor_parallel=TENSOR_PARALLEL,
    volume=option.volume.size,
    download_timeout=option.timeouts.download,
    startup_timeout=option.timeouts.startup,
    role=ROLE,
)
endpoint = Endpoint.deploy(wanted, session, tell=Teller(sys.stdout))

# %% [markdown]
# ## Ask

# %%
PROMPT = "KING.\nMy lords,"
GREEDY = {"do_sample": False, "max_new_tokens": 40}

answer = endpoint.invoke({"inputs": PROMPT, "parameters": GREEDY})
print(answer.value[0]["generated_text"])

# %% [markdown]
# The same as a stream. Each piece is shown when it comes.

# %%
from bloomery.sagemaker import pieces

for piece in pieces(endpoint.stream({"inputs": PROMPT, "parameters": GREEDY, "stream": True})):
    print(piece, end="", flush=True)

# %% [markdown]
# ## Verify
# Kernels, number formats and splitting change the order of the arithmetic. So compare: the unsharded model is run here,
# in fp32, over the same prompts, and each difference is judged by what the number format explains.

# %%
from IPython.display import SVG, Markdown, display

from bloomery.bench.api import table, verify

comparison = verify(NAME, session, CHECKPOINT, [PROMPT, "To be, or", "What is a name?"], max_new_tokens=24)
Markdown(table(comparison))

# %% [markdown]
# ## Measure
# The row of the published table: 4 prompts at a time, P50, P90 and P99 of the whole call, and tokens per second. Fewer
# new tokens than the published 256, so that a laptop is done in seconds; notebook 3 does it in full.

# %%
from bloomery.bench.api import markdown, measure, picture

measured = measure(NAME, session, table=True, requests=REQUESTS, max_new_tokens=16, price_per_hour=price.per_hour)
display(SVG(picture.render([measured])))
Markdown(markdown.render([measured]))

# %% [markdown]
# ## What it costs
# By the price and the throughput that was just measured; on an emulator that is this machine's, at the price of AWS.

# %%
from bloomery.sagemaker import Cost, Throughput

cost = Cost(price.per_hour, Throughput(**measured["throughput"]))
print(f"{cost.per_hour} USD per hour, {cost.per_month:.0f} per month if it runs all the time")
print(f"{cost.per_thousand_requests:.2f} USD per 1,000 requests, {cost.per_million_tokens:.2f} per million tokens")

# %% [markdown]
# ## Clean up
# Run this cell at the end, and after any failure. In a fresh kernel run the two cells at the top first. It removes the
# endpoint with all that belongs to it, and everything below the notebook's folder in S3; what is gone is no error.

# %% tags=["clean-up"]
from bloomery.sagemaker import prefix, remove

remove(session, NAME, seen=print)
print(f"{folder}: {prefix.delete(session, prefix.below(session, folder))} objects removed")
session.close()
