"""``StreamingUtils`` of DJLServing 0.22 and later: token texts of a model that the handler loaded itself.

The decoding is bloomery's own, so that ranks stay together, prompts of different lengths are padded on the left, and
half a character is held back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bloomery.engines import models
from bloomery.engines.base import GenerationParameters
from bloomery.engines.generation import TransformersEngine
from bloomery.formats import texts_per_step
from bloomery.protocol.events import Failure
from bloomery.tasks.request import GenerationRequest
from bloomery.tasks.text_generation import generate, tokenise

StreamGenerator = Callable[..., Iterator[list[str]]]
_POSITIONS = 2**31 - 1  # a model that states no limit of its own


class StreamingUtils:
    """``StreamingUtils.get_stream_generator("DeepSpeed")(model, tokenizer, inputs, device, **parameters)``."""

    DEFAULT_MAX_NEW_TOKENS = 50
    BUILTIN_ENGINES = frozenset({"DeepSpeed", "Accelerate", "transformers-neuronx"})

    @staticmethod
    def get_stream_generator(execution_engine: str) -> StreamGenerator:
        """The function that streams for a model of that library; each item is a list with a text per prompt."""
        if execution_engine not in StreamingUtils.BUILTIN_ENGINES:
            known = ", ".join(sorted(StreamingUtils.BUILTIN_ENGINES))
            raise ValueError(f"{execution_engine} engine is not supported for streaming; it must be one of {known}")
        return _stream

    @staticmethod
    def use_hf_default_streamer(
        model: Any, tokenizer: Any, inputs: list[str], device: Any = None, **parameters: Any
    ) -> Iterator[list[str]]:
        """The same stream, under the name that DJLServing gave to transformers' own streamer."""
        return _stream(model, tokenizer, inputs, device, **parameters)


def _stream(
    model: Any, tokenizer: Any, inputs: list[str], device: Any = None, **parameters: Any
) -> Iterator[list[str]]:
    """The new text of every prompt, step by step. ``device`` is the model's own, whatever is given."""
    if not isinstance(inputs, list) or not inputs:
        raise ValueError(f"inputs must be a list of at least one text, not {inputs!r:.80}")
    model = getattr(model, "module", model)  # what deepspeed.init_inference returns is a wrapper
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    engine = TransformersEngine(
        name="handler's own",
        model=model,
        model_type=model.config.model_type,
        tokenizer=tokenizer,
        max_tokens=models.token_limit(model.config, _POSITIONS),
        ranks=_ranks(),
    )
    request = GenerationRequest(prompts=tuple(inputs), parameters=_generation_parameters(parameters))
    for texts in texts_per_step(generate(engine, tokenise(engine, request), request), len(inputs)):
        if isinstance(texts, Failure):
            raise RuntimeError(texts.message)
        yield texts


def _ranks() -> int:
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _generation_parameters(parameters: dict[str, Any]) -> GenerationParameters:
    """DJLServing's keyword arguments; there, any sampling parameter means sampling."""
    given = dict(parameters)
    given.pop("engine", None)
    if given.pop("beam_size", 1) > 1 or given.pop("num_beams", 1) > 1:
        raise ValueError("beams cannot be streamed, because the best one is known only at the end: leave beam_size out")
    samples = any(name in given for name in ("temperature", "top_p", "top_k", "typical_p"))
    names = ("temperature", "top_k", "top_p", "repetition_penalty")
    return GenerationParameters(
        max_new_tokens=given.pop("max_new_tokens", StreamingUtils.DEFAULT_MAX_NEW_TOKENS),
        do_sample=bool(given.pop("do_sample", False) or samples),
        seed=given.pop("manual_seed", None),
        **{name: given.pop(name, None) for name in names},
        extra=given,
    )
