"""Streams with StreamingUtils when the request (or the option) says so, and cleans up with finalize."""

import os
import tempfile

from transformers import AutoModelForCausalLM, AutoTokenizer

from djl_python import Input, Output
from djl_python.streaming_utils import StreamingUtils

model = tokenizer = None
enable_streaming = False


def load(properties):
    global model, tokenizer, enable_streaming
    enable_streaming = properties.get("enable_streaming", "false").lower() == "true"
    tokenizer = AutoTokenizer.from_pretrained(properties["model_id"])
    model = AutoModelForCausalLM.from_pretrained(properties["model_id"]).eval()


def handle(inputs: Input):
    if not model:
        load(inputs.get_properties())
    if inputs.is_empty():
        return None

    request = inputs.get_as_json()
    prompts = request["inputs"] if isinstance(request["inputs"], list) else [request["inputs"]]
    parameters = request.get("parameters", {})
    outputs = Output()
    if request.get("stream", enable_streaming):
        _, scratch = tempfile.mkstemp(dir=inputs.get_property("scratch"))
        stream_generator = StreamingUtils.get_stream_generator("Accelerate")
        outputs.add_property("content-type", "application/jsonlines")
        outputs.add_stream_content(stream_generator(model, tokenizer, prompts, "cpu", **parameters))
        outputs.finalize(os.remove, scratch)
        return outputs
    tokens = tokenizer(prompts, return_tensors="pt", padding=True)
    ids = model.generate(**tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id, **parameters)
    return outputs.add(tokenizer.batch_decode(ids, skip_special_tokens=True))
