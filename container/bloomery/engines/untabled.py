"""Models that ``sharding.families`` has no table of: is what DeepSpeed's parser makes of them right?

The parser cuts linear layers and nothing else. A norm over all heads at once (OLMo 2, Cohere), a norm per head
(StableLM 2 12B) and a convolution (LFM2) then stay whole beside the rank's heads, and the rank computes with another's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bloomery.errors import UnsupportedModelError

_REMEDY = "use tensor_parallel=1 or the Python engine"


def check_blocks(config: Any, blocks: Mapping[str, nn.Module]) -> None:
    """Refuse a model whose split layers lie beside weights that would have to be split with them."""
    found = sorted({name for block in blocks.values() for name in _left_whole(config, block)})
    if found:
        raise UnsupportedModelError(
            f"{config.model_type} keeps weights of all heads beside its projections ({', '.join(found[:5])}), which "
            f"DeepSpeed does not split; {_REMEDY}"
        )


def _left_whole(config: Any, block: nn.Module) -> list[str]:
    split = {name.rpartition(".")[0] for name, layer in block.named_modules() if isinstance(layer, nn.Linear)}
    found = []
    for parent in split - {""}:
        module = block.get_submodule(parent)
        size = _head_size(config, module)
        for name, parameter in module.named_parameters():
            owner = module.get_submodule(name.rpartition(".")[0])
            # One number for all, or one norm that every head uses, is right on every rank.
            shared = parameter.numel() == 1 or (parameter.numel() == size and owner is not module)
            if not isinstance(owner, nn.Linear) and (not shared or _listed(module, name)):
                found.append(f"{parent}.{name}")
    return found


def _head_size(config: Any, attention: nn.Module) -> int | None:
    size = getattr(attention, "head_dim", None) or getattr(config, "head_dim", None)
    return size if isinstance(size, int) else config.hidden_size // config.num_attention_heads


def _listed(module: nn.Module, name: str) -> bool:
    parents = name.split(".")[:-1]
    return any(
        isinstance(module.get_submodule(".".join(parents[: depth + 1])), nn.ModuleList) for depth in range(len(parents))
    )


def try_out(model: Any) -> None:
    """One token through this rank's share; all ranks must call it.

    Layers that were cut in two ways, or code that counts heads by the config, fail here, and not at every request of an
    endpoint that says it is healthy.
    """
    token = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    decoded = {"decoder_input_ids": token} if model.config.is_encoder_decoder else {}
    try:
        with torch.no_grad():
            model(input_ids=token, attention_mask=torch.ones_like(token), **decoded)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise UnsupportedModelError(
            f"{model.config.model_type} does not compute as DeepSpeed splits it ({error}); {_REMEDY}"
        ) from error
