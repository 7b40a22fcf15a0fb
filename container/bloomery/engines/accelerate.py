"""A transformers model in one process, on whatever devices it sees, placed by accelerate."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from bloomery.checkpoints import Checkpoint
from bloomery.checkpoints.splitting.presharded import is_split, stored_dtype
from bloomery.engines import filling, loading, memory, models, pipelines, precision
from bloomery.engines.generation import TransformersEngine
from bloomery.engines.remote_code import refused_in_words
from bloomery.engines.streamed import open_reader
from bloomery.errors import CheckpointError, UnsupportedModelError
from bloomery.processes import rank
from bloomery.settings.security import PICKLES, Security
from bloomery.sharding import WHOLE

log = logging.getLogger(__name__)


def load(
    place: str | Path | Checkpoint,
    dtype: str = "auto",
    device_map: str | dict[str, Any] | None = None,
    max_tokens: int = 1024,
    *,
    trust_remote_code: bool = False,
    tokenizer: str | Path | None = None,
    chat_template: str | None = None,
    task: str | None = None,
) -> TransformersEngine:
    """Load a checkpoint: of a directory, or of what ``checkpoints.locate`` gives.

    dtype: fp32, fp16, bf16, int8 (weight-only) or auto (what the checkpoint says).
    device_map: accelerate's; by default "auto" where there is a GPU, else the CPU.
    max_tokens: prompt and new tokens together.
    chat_template: Jinja text, or the path of a file with it, in place of the checkpoint's own.
    task: one of models.TASKS; by default what the checkpoint's architecture is for.
    """
    checkpoint = Checkpoint.of(place)
    path = checkpoint.path
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = loading.read_config(path, trust_remote_code=trust_remote_code)
    task = models.task_of(config, task)
    chosen = precision.choose(dtype, config, device, stored_dtype(path))
    limit = models.token_limit(config, max_tokens)
    placement = device_map if device_map is not None else "auto" if device == "cuda" else None
    auto_class = models.auto_class(config, task)
    with memory.returned_when_freed():
        meta = _ours(checkpoint, auto_class, config, chosen.dtype, placement, trust_remote_code)
        if meta is not None:
            model = meta.model.to_empty(device="cpu")
            with filling.reading(open_reader(checkpoint, meta.rename)) as reader:
                preparation = precision.Preparation(chosen, device, reader.scales)
                loading.fill(model, meta, reader, lambda name: WHOLE, preparation.apply)
        else:
            preparation = precision.Preparation(chosen, device)
            model = _read(checkpoint, auto_class, config, chosen.dtype, placement, trust_remote_code)
            rank.current.report("preparing kernels")
            preparation.apply(model)
        preparation.finish()
    model.eval()
    model.requires_grad_(False)
    models.give_generation_config(model, path)
    rank.current.report("loading weights", 100.0)
    engine = TransformersEngine(
        name="accelerate",
        model=model,
        model_type=config.model_type,
        tokenizer=models.load_tokenizer(
            Path(tokenizer) if tokenizer else path, trust_remote_code=trust_remote_code, chat_template=chat_template
        ),
        max_tokens=limit,
    )
    return pipelines.for_task(engine, task)


def _ours(
    checkpoint: Checkpoint, auto_class: Any, config: Any, dtype: torch.dtype, placement: Any, trust_remote_code: bool
) -> loading.MetaModel | None:
    """The model without weights, where transformers cannot read them itself: they are to be streamed, or are split.
    What cannot be streamed is fetched instead, and the log says why. Raises UnsupportedModelError.
    """
    split = checkpoint.source is None and is_split(checkpoint.path)
    if checkpoint.source is None and not split:
        return None
    reason: object = f"device_map={placement} is transformers' own"
    if placement is None:
        try:
            return loading.build_on_meta(config, auto_class, dtype, trust_remote_code=trust_remote_code)
        except UnsupportedModelError as error:
            reason = error
    if split or checkpoint.source is None:
        raise UnsupportedModelError(
            f"{checkpoint.path} is split for several ranks, and cannot be loaded as it is: {reason}; use the "
            "checkpoint that it was made from"
        )
    log.warning("%s is fetched to disk and not streamed: %s", checkpoint.source.uri, reason)
    return None


def _read(
    checkpoint: Checkpoint, auto_class: Any, config: Any, dtype: torch.dtype, placement: Any, trust_remote_code: bool
) -> Any:
    """The model with its weights, by transformers itself; what it objects to, in words."""
    path = checkpoint.on_disk()
    security = Security.read(os.environ)
    security.search(path)
    rank.current.report("loading weights")
    try:
        with refused_in_words(path):
            model, found = auto_class.from_pretrained(
                path,
                config=config,
                dtype=dtype,
                device_map=placement,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                use_safetensors=PICKLES in security.controls or not checkpoint.allow_pickle or None,  # None: any
            )
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be loaded: {error}") from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: a file of its weights is damaged or cut off ({error}): fetch it again"
        ) from error
    except (ValueError, KeyError) as error:
        raise UnsupportedModelError(f"{path}: transformers cannot load this model: {error}") from error
    if found["missing_keys"]:
        # transformers would go on with random numbers in their place.
        some = ", ".join(sorted(found["missing_keys"])[:8])
        raise CheckpointError(f"{path} lacks weights of this {type(model).__name__}: {some}")
    weights = set(model.state_dict())
    for name in sorted(found["unexpected_keys"]):
        if name.rpartition("_scale")[0] in weights:
            # transformers has taken the codes of a quantised weight for its numbers.
            raise UnsupportedModelError(
                f"{path} is quantised, and its config.json does not say how: nobody wants {name}, a scale of a weight; "
                "use the checkpoint that it was made from, with option.dtype=int8 if memory is short"
            )
    return model
