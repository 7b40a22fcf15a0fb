# %% [markdown]
# # 2 · Any model of a hub, on an endpoint
#
# A model's id becomes an endpoint, without a line of code: look at its licence, see what it fits on, bring it to S3,
# deploy it with the built-in handler, talk to it.
#
# | model | parameters | licence | instance of the published measurement |
# |---|---|---|---|
# | `Qwen/Qwen2.5-0.5B-Instruct` (the default) | 0.5 billion | Apache 2.0 | |
# | `facebook/opt-30b` | 30 billion | OPT-175B: **non-commercial** research only | `ml.g5.24xlarge`, degree 4 |
#
# **Cost:** with `TARGET = "local"` nothing but the download (1 GB for the default). With `TARGET = "aws"` one
# `ml.g5.xlarge` for about 15 minutes; the notebook prints the price per hour and asks before it makes anything.
#
# **Before the first cell:** what [README.md](README.md#run-one) installs, and for the target `local`
# `bloomery sagemaker-local` in a terminal. Tested with bloomery 0.1.0, boto3 1.44.5, transformers 5.23.0.

# %% tags=["parameters"]
TARGET = "local"  # or "aws": your own account
REGION = "us-east-1"
NAME = "any-model"  # of the endpoint, its configuration and its model
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"  # a hub's id, s3://…, https://… or a directory
REVISION = None  # a commit of the hub: pin it, and what you tested is what you get
INSTANCE_TYPE = "ml.g5.xlarge"
TENSOR_PARALLEL = 1
BATCH = 4  # sequences at once
LENGTH = 1024  # tokens of each, prompt and answer together
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
# ## Licence and size, before anything is downloaded
# A few hundred kilobytes are read: the model card, the configuration, and the headers of the weights.

# %%
from bloomery.sagemaker import plan

planned = plan(MODEL, revision=REVISION, batch=BATCH, length=LENGTH)
print(f"{planned.facts.model_type}, {planned.facts.parameters:,} parameters in {planned.form.dtype}")
print(f"licence: {planned.licence.name or 'none named'}: {planned.licence.remark}")

# %% [markdown]
# Which instances it fits on, with the lowest degree of tensor parallelism that does. `free` is what each GPU has left.

# %%
from IPython.display import Markdown

rows = [
    f"| {each.instance_type} | {each.degree} | {each.memory.total / 2**30:.1f} | {each.free / 2**30:.1f} "
    f"| {each.largest_batch} | {each.load.expected:.0f} |"
    for each in planned.best_of_each()
    if each.fits
]
head = "| instance | degree | GiB per GPU | free | largest batch | loads in s |\n|---|---|---|---|---|---|\n"
Markdown(head + "\n".join(rows[:8]))

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
# ## From the hub to S3
# The endpoint then starts without the hub, every time from the same bytes. A model that is in S3 already is left there.

# %%
import tempfile

from bloomery.checkpoints import fetch, upload

scratch = tempfile.TemporaryDirectory()
if MODEL.startswith("s3://"):
    checkpoint = MODEL
else:
    directory = fetch(MODEL, directory=scratch.name, revision=REVISION)
    checkpoint = upload(directory, f"{folder}checkpoint/").uri
scratch.cleanup()
print(checkpoint)

# %% [markdown]
# ## Deploy
# No archive and no `model.py`: a checkpoint alone is served by the built-in handler. Time-outs and volume are those of
# the plan.

# %%
from bloomery.sagemaker import Deployment, Endpoint, Teller

chosen = plan(
    checkpoint, instance_types=[INSTANCE_TYPE], tensor_parallel=TENSOR_PARALLEL, batch=BATCH, length=LENGTH
).options[0]
wanted = Deployment(
    name=NAME,
    instance_types=(INSTANCE_TYPE,),
    checkpoint=checkpoint,
    tensor_parallel=TENSOR_PARALLEL,
    volume=chosen.volume.size,
    startup_timeout=chosen.timeouts.startup,
    environment={"OPTION_MAX_TOKENS": str(LENGTH)},
    role=ROLE,
)
endpoint = Endpoint.deploy(wanted, session, tell=Teller(sys.stdout))

# %% [markdown]
# ## Talk
# A model with a chat template takes messages, as OpenAI's clients send them; any model takes a text.

# %%
messages = [{"role": "user", "content": "Who is the king?"}]
answer = endpoint.invoke({"messages": messages, "max_tokens": 40})
print(answer.value["choices"][0]["message"]["content"])

# %%
answer = endpoint.invoke({"inputs": "The king said", "parameters": {"max_new_tokens": 40, "do_sample": False}})
print(answer.text)

# %% [markdown]
# ## Clean up
# Run this cell at the end, and after any failure. In a fresh kernel run the two cells at the top first. It removes the
# endpoint with all that belongs to it, and everything below the notebook's folder in S3; what is gone is no error.

# %% tags=["clean-up"]
from bloomery.sagemaker import prefix, remove

remove(session, NAME, seen=print)
print(f"{folder}: {prefix.delete(session, prefix.below(session, folder))} objects removed")
session.close()
