"""A class with initialize and inference; every exception becomes error()."""

import logging
import os

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from djl_python import Input, Output


class TextService:
    def __init__(self):
        self.initialized = False
        self.device = None
        self.model = None
        self.tokenizer = None

    def initialize(self, properties: dict):
        device_id = int(properties.get("device_id", "-1"))
        self.device = torch.device(f"cuda:{device_id}" if device_id >= 0 and torch.cuda.is_available() else "cpu")
        # a degree is an int under MPI and a text otherwise; this handler takes both
        self.degree = int(properties.get("tensor_parallel_degree", os.getenv("TENSOR_PARALLEL_DEGREE", 1)))
        self.tokenizer = AutoTokenizer.from_pretrained(properties["model_id"], padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(properties["model_id"]).to(self.device).eval()
        logging.info("model is on %s", self.device)
        self.initialized = True

    def inference(self, inputs: Input) -> Output:
        outputs = Output()
        try:
            content_type = inputs.get_property("Content-Type")
            if content_type and content_type.startswith("text/plain"):
                prompts, parameters = [inputs.get_as_string()], {}
            else:
                body = inputs.get_as_json()
                prompts, parameters = body["inputs"], body.get("parameters", {})
            tokens = self.tokenizer(prompts, padding=True, return_tensors="pt").to(self.device)
            with torch.no_grad():
                ids = self.model.generate(
                    **tokens, do_sample=False, pad_token_id=self.tokenizer.pad_token_id, **parameters
                )
            texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
            outputs.add_as_json([{"generated_text": text} for text in texts])
            outputs.add_property("content-type", "application/json")
        except Exception as e:
            logging.exception("inference failed")
            outputs = Output().error(str(e))
        return outputs


_service = TextService()


def handle(inputs: Input) -> Output:
    if not _service.initialized:
        _service.initialize(inputs.get_properties())
    if inputs.is_empty():
        return None
    return _service.inference(inputs)
