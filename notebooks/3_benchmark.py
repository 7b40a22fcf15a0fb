# %% [markdown]
# # 3 · Benchmark an endpoint
#
# The published table again: how long a model loads, and how long it takes for 256 new tokens of 4 prompts, with
# DeepSpeed's tensor parallelism and with Accelerate. Then what today's users ask for: time to the first token, time per
# token, and throughput, over a sweep of concurrency.
#
# **Cost:** with `TARGET = "local"` nothing; a few minutes of your processor. With `TARGET = "aws"` one `ml.g5.24xlarge`
# for about an hour; the notebook prints the price per hour and asks before it makes anything.
#
# **Before the first cell:** what [README.md](README.md#run-one) installs, and for the target `local`
# `bloomery sagemaker-local` in a terminal. Tested with bloomery 0.1.0, boto3 1.44.5, transformers 5.23.0.

# %% tags=["parameters"]
TARGET = "local"  # or "aws": your own account
REGION = "us-east-1"
NAME = "benchmark"  # the endpoints are called NAME-deepspeed and NAME-accelerate
CHECKPOINT = "../models/shakespeare-bloom"  # a directory, or s3://…
INSTANCE_TYPE = "ml.g5.24xlarge"  # that of the published measurement of OPT-30B
TENSOR_PARALLEL = 2  # GPUs that DeepSpeed spreads one copy over
FOLDER = None  # s3://bucket/prefix/ of this notebook alone: the clean-up empties it; None: in the default bucket
ROLE = None  # name or ARN of an execution role; None: the one that this notebook runs with
REQUESTS = 30  # of each measurement
NEW_TOKENS = 256  # of each of the table's 4 prompts
SWEEP = "1,2,4"  # requests under way at once, one prompt each
SWEEP_TOKENS = 64
OBJECTIVES = "ttft=500ms,tpot=50ms"  # what counts as good

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
# ## The price
# On AWS an endpoint costs from "Creating" on. Here the two endpoints are there one after the other.

# %%
from bloomery.sagemaker import Prices

price = Prices(session).of(INSTANCE_TYPE)
print(f"{INSTANCE_TYPE}: {price.per_hour} USD per hour ({price.source})")
if TARGET == "aws" and input("Make endpoints? yes or no: ") != "yes":
    raise SystemExit("nothing was made")

# %% [markdown]
# ## What is measured
# One checkpoint, two engines. A percentile of a few requests says little: below 30 requests the report says so, and it
# gives the interval that each percentile lies in.

# %%
from bloomery.bench.api import measure
from bloomery.checkpoints import upload
from bloomery.sagemaker import Deployment, Endpoint, Teller

checkpoint = CHECKPOINT if CHECKPOINT.startswith("s3://") else upload(CHECKPOINT, f"{folder}checkpoint/").uri


def measured(engine, **wanted):
    """Deploy, measure both ways, remove."""
    deployment = Deployment(f"{NAME}-{engine}", (INSTANCE_TYPE,), checkpoint=checkpoint, role=ROLE, **wanted)
    with Endpoint.deploy(deployment, session, tell=Teller(sys.stdout)) as endpoint:
        asked = {"name": engine, "price_per_hour": price.per_hour}
        table = measure(endpoint.name, session, table=True, requests=REQUESTS, max_new_tokens=NEW_TOKENS, **asked)
        sweep = measure(
            endpoint.name,
            session,
            sweep=SWEEP,
            requests=REQUESTS,
            max_new_tokens=SWEEP_TOKENS,
            objectives=OBJECTIVES,
            **asked,
        )
    return table, sweep


# %% [markdown]
# ## DeepSpeed
# Each layer is spread over the ranks, which compute at the same time.

# %%
deepspeed_table, deepspeed_sweep = measured("deepspeed", tensor_parallel=TENSOR_PARALLEL)

# %% [markdown]
# ## Accelerate
# Layers lie on the devices one behind the other: one computes, the others wait. It knows more models and formats.

# %%
accelerate_table, accelerate_sweep = measured(
    "accelerate", environment={"OPTION_ENGINE": "Python", "OPTION_ENTRYPOINT": "djl_python.huggingface"}
)

# %% [markdown]
# ## The table
# The published figures, for 4 × 256 tokens: OPT-30B on `ml.g5.24xlarge` 11.3 s with DeepSpeed and 63.7 s with
# Accelerate; BLOOM-176B on `ml.p4d.24xlarge` 27.6 s and 92.7 s.

# %%
from IPython.display import IFrame, Markdown

from bloomery.bench.api import markdown, page

Markdown(markdown.render([deepspeed_table, accelerate_table]))

# %% [markdown]
# ## The report
# One page with everything, which needs nothing else: `Path("report.html").write_text(report)` keeps it.

# %%
from base64 import b64encode

report = page.render([deepspeed_sweep, accelerate_sweep])
IFrame(f"data:text/html;base64,{b64encode(report.encode()).decode()}", "100%", 900)

# %% [markdown]
# ## Clean up
# Run this cell at the end, and after any failure. In a fresh kernel run the two cells at the top first. It removes the
# endpoints with all that belongs to them, and everything below the notebook's folder in S3; what is gone is no error.

# %% tags=["clean-up"]
from bloomery.sagemaker import prefix, remove

for engine in ("deepspeed", "accelerate"):
    remove(session, f"{NAME}-{engine}", seen=print)
print(f"{folder}: {prefix.delete(session, prefix.below(session, folder))} objects removed")
session.close()
