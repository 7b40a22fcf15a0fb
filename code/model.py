"""Serve a checkpoint with DeepSpeed, split over several devices. Copy this file and change what you like.

The server starts one process per device ("rank") and runs this file in each of them. It calls handle() once without
content, so that the model is loaded before the first client comes, and then once per request, in all ranks at the same
time: each rank computes its share of every layer, and the server answers with what rank 0 returns.

Settings come from serving.properties ("option.max_tokens=2048") or from the environment ("OPTION_MAX_TOKENS=2048");
here they arrive without "option.", all of them as text.
"""

import logging
import os

from bloomery import checkpoints, tasks
from bloomery.engines import deepspeed
from bloomery.errors import UnsupportedModelError
from djl_python import Input, Output
from djl_python.handler_options import dtype_of

engine = None
answers = None


def load(options):
    """Fetch the checkpoint, then spread it over the ranks."""
    # The checkpoint is not in model.tar.gz: it would be copied and unpacked before anything could start. It is fetched
    # into /tmp (once, whichever rank comes first) from s3://bucket/prefix, a model hub, or a directory.
    source = options.get("model_id") or options.get("s3url") or options["model_dir"]
    checkpoint = checkpoints.locate(
        source,
        revision=options.get("revision"),
        load_format=options.get("load_format", "auto"),  # stream: weights go straight to memory, past the disk
        allow_pickle=options.get("allow_pickle") != "false",  # whether .bin files will do where nothing else is
    )

    settings = {
        "tensor_parallel": int(os.environ.get("TENSOR_PARALLEL_DEGREE", 1)),
        "dtype": dtype_of(options),  # option.dtype: fp32, fp16, bf16, int8, or auto: as the checkpoint is stored
        "max_tokens": int(options.get("max_tokens", 1024)),  # prompt and new tokens together
        "trust_remote_code": options.get("trust_remote_code") == "true",  # run code that comes with the checkpoint
        "task": options.get("task"),  # fill-mask, text-classification, ...; None: what the checkpoint was made for
        "allreduce": options.get("allreduce", "auto"),  # how ranks on CPUs add up: auto measures; gloo, shm
        "chat_template": options.get("chat_template"),  # Jinja text or a file, in place of the checkpoint's own
    }
    # Kernel injection replaces whole layers by DeepSpeed's own, for bloom, opt, gpt2, gpt_neo, gptj and gpt_neox. It
    # changes the order of the arithmetic, so compare a few outputs with those of option.kernel_inject=false.
    wish = options.get("kernel_inject", "true")
    try:
        return deepspeed.load(checkpoint, kernel_inject={"true": True, "false": False}.get(wish, "auto"), **settings)
    except UnsupportedModelError as refusal:
        if wish != "true":
            raise
        logging.warning("no kernel injection: %s", refusal)
    # Any other family: its linear layers are split between the ranks and the rest is left as it is ("AutoTP"). For a
    # model of your own, pass injection_policy={YourBlock: ("attention.output", "mlp.output")}.
    return deepspeed.load(checkpoint, kernel_inject=False, **settings)


def handle(inputs: Input) -> Output | None:
    """Answer {"inputs": "text" or ["texts"], "parameters": {"max_new_tokens": 30}, "stream": false}."""
    global engine, answers
    if engine is None:
        options = inputs.get_properties()
        engine = load(options)
        answers = tasks.AnswerOptions.read(options)  # answer_format, output_formatter, enable_streaming, ...
    if inputs.is_empty():  # the call that only loads
        return None
    return tasks.answer(engine, inputs, answers)
