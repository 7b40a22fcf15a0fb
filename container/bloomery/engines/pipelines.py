"""Models that give labels, fillings or spans instead of text, driven by transformers' own pipelines.

Every rank of a group runs the same pipeline over the same items, so the collectives inside the model's layers meet;
what the ranks compute is equal, and so is each rank's answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bloomery.engines import models
from bloomery.engines.generation import TransformersEngine
from bloomery.engines.question_answering import SpanFinder
from bloomery.errors import BadRequestError, UnsupportedModelError, WorkerError
from bloomery.processes import rank
from bloomery.sharding import FAMILIES

MAX_BATCH = 16  # texts that go through the model at once


@dataclass
class TransformersPipeline(TransformersEngine):
    """A loaded model with a head other than a language model's, and the pipeline that ``task`` names."""

    task: str = ""
    _pipeline: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # Encoders count positions from the first column, padding or not. What is cut is cut to what the model knows.
        self.tokenizer.padding_side = "right"
        self.tokenizer.model_max_length = min(self.tokenizer.model_max_length, self.max_tokens)
        if self.task == "fill-mask" and self.tokenizer.mask_token is None:
            raise UnsupportedModelError("fill-mask needs a tokenizer with a mask token, and this one has none")
        self._pipeline = SpanFinder(self.model, self.tokenizer) if self.task == "question-answering" else self._made()

    @property
    def mask_token(self) -> str | None:
        """What stands in a text for the word to be filled in."""
        return None if self.tokenizer.mask_token is None else str(self.tokenizer.mask_token)

    def count_tokens(self, text: Any) -> int:
        """Tokens of a text, or of a text and its pair, with what the tokenizer puts around them."""
        given = text if isinstance(text, dict) else {"text": text}
        return len(self.tokenizer(**given, verbose=False)["input_ids"])

    def run(self, items: Sequence[Any], parameters: Mapping[str, Any]) -> list[Any]:
        """One result per item, in their order, as the pipeline makes it for an item of a list."""
        from transformers.pipelines.base import PipelineException

        given = dict(parameters)
        if self.task == "fill-mask" and "top_k" in given:
            given["top_k"] = min(given["top_k"], self.model.config.vocab_size)
        # Items come from a generator: a list would be answered in another shape when it has one item.
        batch_size = min(len(items), MAX_BATCH) if self._pads() else 1
        results = []
        try:
            for result in self._pipeline(_each(items), batch_size=batch_size, **given):
                rank.current.step()
                results.append(result)
                if self.ranks == 1 and rank.current.cancelled:  # several ranks could not agree on where to stop
                    raise WorkerError("the request was cancelled")
        except (ValueError, PipelineException) as error:
            raise BadRequestError(f"{self.task}: {error}") from error
        return results

    def _pads(self) -> bool:
        """Whether texts of different lengths may share a batch: some heads look for the last token by its padding."""
        return self.tokenizer.pad_token_id is not None and self.model.config.pad_token_id is not None

    def _made(self) -> Any:
        from transformers import pipeline

        logging.getLogger("transformers.pipelines").setLevel(logging.ERROR)  # its warnings quote what clients send
        placed = getattr(self.model, "hf_device_map", None)
        return pipeline(
            self.task,
            model=self.model,
            tokenizer=self.tokenizer,
            device=None if placed else self.model.device,
        )


def for_task(engine: TransformersEngine, task: str) -> TransformersEngine:
    """``engine`` as it is when it shall generate, or has no tokenizer and can do nothing but compute logits; else the
    pipeline over its model."""
    if task in models.GENERATING or engine.tokenizer is None:
        return engine
    return TransformersPipeline(**{**vars(engine), "task": task})


def check_splittable(config: Any, task: str, inject: bool, has_policy: bool) -> None:
    """Refuse what cannot be computed by several ranks, or in layers that DeepSpeed made for decoding."""
    decodes = task in models.GENERATING
    if decodes and not config.is_encoder_decoder:
        return
    if inject and not decodes:
        raise UnsupportedModelError(
            f"{task}: DeepSpeed's injected layers keep what they decoded and serve text generation only; use "
            "kernel_inject=False, or engine=Python"
        )
    if not inject and (task == "feature-extraction" or (config.model_type not in FAMILIES and not has_policy)):
        raise UnsupportedModelError(
            f"{task} with a {config.model_type} model cannot be split over ranks; use engine=Python, or "
            "tensor_parallel_degree=1"
        )


def _each(items: Sequence[Any]) -> Iterator[Any]:
    yield from items
