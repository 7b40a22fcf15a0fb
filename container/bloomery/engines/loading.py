"""Build a model on the meta device and fill this rank's share of it from a checkpoint."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bloomery.engines.filling import Filler, filled_ahead, is_poisoned, poison
from bloomery.engines.reader import Reader
from bloomery.engines.remote_code import refused_in_words
from bloomery.errors import CheckpointError, UnsupportedModelError
from bloomery.sharding import WHOLE, Split

log = logging.getLogger(__name__)


@dataclass
class MetaModel:
    """A model without weights, and what is lost once DeepSpeed has replaced its layers."""

    model: Any
    shapes: dict[str, tuple[int, ...]]  # of its parameters and persistent buffers, whole
    ties: dict[str, str]  # a name that shares another's tensor -> that other
    buffers: dict[str, torch.Tensor]  # what no checkpoint holds (rotary frequencies, masks), computed
    rename: Callable[[str], str | None]  # from a name in the checkpoint to the model's


def read_config(path: Path, *, trust_remote_code: bool = False) -> Any:
    """The checkpoint's config.json as transformers reads it."""
    from transformers import AutoConfig

    if (path / "adapter_config.json").is_file():
        raise UnsupportedModelError(
            f"{path} holds a LoRA adapter (adapter_config.json), which is not served by itself or beside its model: "
            "merge it into its base model (peft: merge_and_unload, then save_pretrained) and serve the result"
        )
    if not (path / "config.json").is_file():
        raise CheckpointError(
            f"{path} holds no config.json: this is no transformers checkpoint, or its download is incomplete"
        )
    try:
        with refused_in_words(path):
            return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (ValueError, OSError, KeyError) as error:
        raise UnsupportedModelError(f"{path}/config.json: transformers cannot make a model of it: {error}") from error


def build_on_meta(config: Any, auto_class: Any, dtype: torch.dtype, *, trust_remote_code: bool = False) -> MetaModel:
    """The architecture without any memory for its weights. Raises UnsupportedModelError for quantised ones."""
    if quantisation := getattr(config, "quantization_config", None):
        fields = quantisation if isinstance(quantisation, dict) else vars(quantisation)
        method = fields.get("quant_method", "?")
        raise UnsupportedModelError(
            f"the checkpoint is quantised ({method}; quantization_config in its config.json), which this engine does "
            "not read: use the checkpoint that it was made from, with option.dtype=int8 if memory is short"
        )
    with torch.device("meta"):
        model = auto_class.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    model.eval()
    # Generation and ranks need no gradients, and DeepSpeed's views of parameters refuse in-place fills with them.
    model.requires_grad_(False)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return MetaModel(model, shapes, _ties(model), _computed_buffers(model), _renamer(model))


def _ties(model: Any) -> dict[str, str]:
    ties: dict[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    # Also parameters that simply are one object, which the declaration does not name (T5's embeddings).
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first and name not in ties and first[id(parameter)] not in ties:
            ties = {**ties, name: first[id(parameter)]}
        first.setdefault(id(parameter), name)
    return dict(ties)


def _computed_buffers(model: Any) -> dict[str, torch.Tensor]:
    """The values of non-persistent buffers. On the meta device they are lost, and no file holds them, so the model's
    own initialisation, which transformers writes for just this, computes them on the CPU."""
    persistent = set(model.state_dict())
    found: dict[str, torch.Tensor] = {}
    for prefix, module in model.named_modules():
        names = {name: f"{prefix}.{name}".lstrip(".") for name in module._buffers if module._buffers[name] is not None}
        lost = {name: full for name, full in names.items() if full not in persistent}
        if not lost:
            continue
        for name in lost:
            module._buffers[name] = torch.empty_like(module._buffers[name], device="cpu")
            poison(module._buffers[name])
        with torch.no_grad():
            model._init_weights(module)
        found |= {full: module._buffers[name].clone() for name, full in lost.items()}
    bad = [name for name, value in found.items() if is_poisoned(value)]
    if bad:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not say how to compute its buffers {', '.join(bad[:5])}, which no checkpoint "
            "holds; load it with the Python engine (plain transformers)"
        )
    return found


def fill(
    module: nn.Module,
    meta: MetaModel,
    reader: Reader,
    part: Callable[[str], Split],
    prepare: Callable[[nn.Module, str], None] = lambda module, prefix: None,
) -> None:
    """Fill every tensor of ``module``; ``part`` says which piece of a checkpoint's tensor is this rank's.

    ``prepare`` gets each block and the output head as soon as they are full, to repack their layers. The largest come
    first: two copies of one layer then exist while little else does.
    """
    # DeepSpeed's to_empty() unties what shares memory; tied again before the first write, it never costs memory twice.
    tie(module, {name: other for name, other in meta.ties.items() if part(name) == part(other) == WHOLE})
    filler = Filler(module, reader)
    units = _units(module, filler.unfilled(), meta)

    def ask(unit: str) -> None:
        fill_plain(filler, meta, part, f"{unit}." if unit else "")

    for unit in filled_ahead(filler, units, ask):
        if unit:
            prepare_alone(module, unit, prepare)
    filler.check()
    for name in _outside(module, units):
        prepare_alone(module, name, prepare)


def fill_plain(filler: Filler, meta: MetaModel, part: Callable[[str], Split], prefix: str = "") -> None:
    """Fill the tensors that have the same name in the module and in the checkpoint, and the computed buffers.

    With them comes what a file holds under one name for both, an embedding with its head: it is read once.
    """
    names = list(filler.unfilled())
    roots = {meta.ties.get(name, name) for name in names if name.startswith(prefix)}
    for name in names:
        if name.startswith(prefix) or meta.ties.get(name, name) in roots:
            source = next((n for n in _same(name, meta.ties) if n in filler.reader), None)
            if name in meta.buffers:
                filler.set_buffer(name, meta.buffers[name])
            elif source is not None:
                filler.copy(name, source, part(name))


def _outside(module: nn.Module, units: list[str]) -> list[str]:
    """The linear layers that belong to no block: projections of embeddings, heads of encoders, tied heads."""
    inside = tuple(f"{unit}." for unit in units if unit)
    return [
        name
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear) and name not in units and not name.startswith(inside)
    ]


def _units(module: nn.Module, names: Iterable[str], meta: MetaModel) -> list[str]:
    """Blocks and head, the largest first, then "" for all the rest.

    By their whole sizes: ranks hand each other what they have read, which takes the same order in all of them.
    """
    sizes = {name: math.prod(meta.shapes.get(name, ())) for name in names}
    blocks = [
        f"{name}.{index}"
        for name, child in module.named_modules()
        if isinstance(child, nn.ModuleList)
        for index in range(len(child))
    ]
    outer = [name for name in blocks if not any(name.startswith(f"{other}.") for other in blocks)]
    heads = [name for name in ("lm_head", "embed_out") if f"{name}.weight" in sizes]
    total = {unit: sum(size for name, size in sizes.items() if name.startswith(f"{unit}.")) for unit in outer + heads}
    return [*sorted(total, key=lambda unit: -total[unit]), ""]


def prepare_alone(module: nn.Module, unit: str, prepare: Callable[[nn.Module, str], None]) -> None:
    """``prepare`` looks at a module's children; here it shall see one child only, the others being empty yet."""
    owner_name, _, last = unit.rpartition(".")
    owner, shelf = module.get_submodule(owner_name), nn.Module()
    shelf.add_module(last, getattr(owner, last))
    embeddings: Any = getattr(module, "get_input_embeddings", lambda: None)()
    if embeddings is not None:
        shelf.add_module("embeddings", embeddings)  # a head may be tied to them, which repacking must respect
    prepare(shelf, f"{owner_name}." if owner_name else "")
    setattr(owner, last, getattr(shelf, last))


def tie(module: nn.Module, ties: dict[str, str]) -> None:
    """Let each parameter be the other's own tensor, where the module still has both."""
    tensors = dict(module.named_parameters(remove_duplicate=False))
    for name, other in ties.items():
        if name in tensors and other in tensors:
            owner, _, last = name.rpartition(".")
            module.get_submodule(owner)._parameters[last] = dict(module.named_parameters(remove_duplicate=False))[other]


def _same(name: str, ties: dict[str, str]) -> Iterator[str]:
    """Under which names a tensor may stand in a file: its own, or that of one it is tied to."""
    yield name
    root = ties.get(name, name)
    if root != name:
        yield root
    for tied, other in ties.items():
        if other == root and tied != name:
            yield tied


def _renamer(model: Any) -> Callable[[str], str | None]:
    """From names in a file to the model's own. transformers 5 renames while it loads and saves (GPT-NeoX's ``lm_head``
    stands as ``embed_out`` in files), and a base model is saved without the head's prefix (bigscience/bloom-560m begins
    with ``h.0``)."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    if not all(isinstance(rule, WeightRenaming) for rule in get_model_conversion_mapping(model, add_legacy=False)):
        raise UnsupportedModelError(
            f"the weights of {model.config.model_type} are joined anew while they are loaded (a mixture of experts, "
            "for instance), which this engine cannot do for one rank's share; use the Python engine"
        )
    conversions = [rule for rule in get_model_conversion_mapping(model) if isinstance(rule, WeightRenaming)]
    names, prefix = frozenset(model.state_dict()), f"{model.base_model_prefix}."

    def rename(name: str) -> str | None:
        modern = name
        for rule in conversions:
            modern, _ = rule.rename_source_key(modern)
        for candidate in (name, modern, prefix + modern, modern.removeprefix(prefix)):
            if candidate in names:
                return str(candidate)
        return name

    return rename
