# %% [markdown]
# # 5 · Your own model.py, and an injection policy
#
# A handler of your own decides what a request looks like and what happens with it; an injection policy tells DeepSpeed
# how to split a model that it does not know. Both are in `own_model/`, a directory of three files.
#
# **Cost:** with `TARGET = "local"` nothing; it takes about a minute. With `TARGET = "aws"` one `ml.g5.12xlarge` for
# about 15 minutes; the notebook prints the price per hour and asks before it makes anything.
#
# **Before the first cell:** what [README.md](README.md#run-one) installs, and for the target `local`
# `bloomery sagemaker-local` in a terminal. Tested with bloomery 0.1.0, boto3 1.44.5, transformers 5.23.0.

# %% tags=["parameters"]
TARGET = "local"  # or "aws": your own account
REGION = "us-east-1"
NAME = "own-model"  # of the endpoint, its configuration and its model
CODE = "own_model"  # serving.properties, model.py, requirements.txt
CHECKPOINT = "../models/shakespeare-bloom"  # a directory, or s3://…
INSTANCE_TYPE = "ml.g5.12xlarge"
TENSOR_PARALLEL = 2
FOLDER = None  # s3://bucket/prefix/ of this notebook alone: the clean-up empties it; None: in the default bucket
ROLE = None  # name or ARN of an execution role; None: the one that this notebook runs with

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
# ## The handler
# `handle` is called once without content, to load, and then once per request, in all ranks at the same time.

# %%
from pathlib import Path

from IPython.display import Code

Code((Path(CODE) / "model.py").read_text(), language="python")

# %% [markdown]
# ## The policy
# A transformer's block has two places where the ranks have to meet: behind the attention's output, and behind the
# second layer of the MLP. These two layers are what the policy names. In a model of your own they are found like this:

# %%
import torch
from transformers import AutoConfig, AutoModelForCausalLM

with torch.device("meta"):  # the structure alone; nothing is loaded
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(CHECKPOINT))
block = model.transformer.h[0]
for name, layer in block.named_modules():
    if isinstance(layer, torch.nn.Linear):
        print(f"{type(block).__name__}: {name} {layer.in_features} -> {layer.out_features}")

# %% [markdown]
# ## Look before it is uploaded
# The archive is checked without running it: names that do not exist, options that nobody knows, weights by accident.

# %%
from bloomery.sagemaker import package

archive = package(CODE, None)
print(f"{archive.size} bytes, sha256 {archive.sha256}: {', '.join(archive.members)}")
for note in archive.notes:
    print(note)

# %% [markdown]
# ## The price
# On AWS an endpoint costs from "Creating" on, whether anybody asks it or not.

# %%
from bloomery.sagemaker import Prices

price = Prices(session).of(INSTANCE_TYPE)
print(f"{INSTANCE_TYPE}: {price.per_hour} USD per hour ({price.source})")
if TARGET == "aws" and input("Make an endpoint? yes or no: ") != "yes":
    raise SystemExit("nothing was made")

# %% [markdown]
# ## Deploy
# `model_data` may be a directory: it is packaged, and uploaded under a name that says what is in it.

# %%
from bloomery.checkpoints import upload
from bloomery.sagemaker import Deployment, Endpoint, Teller

checkpoint = CHECKPOINT if CHECKPOINT.startswith("s3://") else upload(CHECKPOINT, f"{folder}checkpoint/").uri
wanted = Deployment(
    name=NAME,
    instance_types=(INSTANCE_TYPE,),
    model_data=CODE,
    upload_to=folder,
    checkpoint=checkpoint,
    tensor_parallel=TENSOR_PARALLEL,
    role=ROLE,
)
endpoint = Endpoint.deploy(wanted, session, tell=Teller(sys.stdout))

# %% [markdown]
# ## Ask it in its own words

# %%
answer = endpoint.invoke({"speaker": "King", "lines": 3}).value
print(answer["speaker"])
print("\n".join(answer["lines"]))

# %% [markdown]
# What the handler refuses comes back with its status and its words.

# %%
from bloomery.errors import InvocationError

try:
    endpoint.invoke({"speaker": "King", "lines": 1000})
except InvocationError as refusal:
    print(refusal.status, refusal.answer)

# %% [markdown]
# ## Clean up
# Run this cell at the end, and after any failure. In a fresh kernel run the two cells at the top first. It removes the
# endpoint with all that belongs to it, and everything below the notebook's folder in S3; what is gone is no error.

# %% tags=["clean-up"]
from bloomery.sagemaker import prefix, remove

remove(session, NAME, seen=print)
print(f"{folder}: {prefix.delete(session, prefix.below(session, folder))} objects removed")
session.close()
