"""Build a model on the meta device and fill this rank's share of it from a checkpoint."""

from __future__ import annotations

import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bloomery.checkpoints.progress import Progress
from bloomery.engines.reader import CheckpointReader, Pending, Range, Reader
from bloomery.engines.remote_code import refused_in_words
from bloomery.errors import CheckpointError, UnsupportedModelError
from bloomery.processes import rank
from bloomery.sharding import WHOLE, Split

__all__ = ["CheckpointReader", "Filler", "MetaModel", "build_on_meta", "fill", "read_config"]
log = logging.getLogger(__name__)

# An integer that no buffer of a model holds: what stands for NaN where there is none.
_POISON = -8_191_919


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
    """The architecture without any memory for its weights."""
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
            _poison(module._buffers[name])
        with torch.no_grad():
            model._init_weights(module)
        found |= {full: module._buffers[name].clone() for name, full in lost.items()}
    bad = [name for name, value in found.items() if _is_poisoned(value)]
    if bad:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not say how to compute its buffers {', '.join(bad[:5])}, which no checkpoint "
            "holds; load it with the Python engine (plain transformers)"
        )
    return found


@dataclass
class Filling:
    """Tensors of a module that were asked for together: what each is filled from, and what there is to wait for."""

    sources: dict[str, tuple[torch.Tensor, str]]
    pending: Pending
    bytes: int


class Filler:
    """Fills a module's tensors unit by unit: each is poisoned, filled and looked at, and at the end none may be left.

    ``copy`` and ``copy_part`` say what belongs where, ``begin`` has it read, ``settle`` waits for it. A tensor is
    poisoned just before it is filled, not all at once at the start: DeepSpeed's empty tensors take no memory until they
    are first written.
    """

    def __init__(self, module: nn.Module, reader: Reader) -> None:
        self.module, self.reader = module, reader
        self._left: dict[str, torch.Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self._asked: dict[str, tuple[torch.Tensor, str]] = {}
        self.bytes = sum(self.unfilled().values())  # of this rank's share
        rank.current.report("loading weights")
        self._progress = Progress("loading weights", self.bytes)

    def copy(self, name: str, source: str, split: Split = WHOLE) -> None:
        """Fill the module's ``name`` with a part of the checkpoint's ``source``."""
        tensor = self._left.pop(name)
        _poison(tensor)
        self._asked[name] = tensor, source
        ranges = None if split.axis is None else split.ranges
        self.reader.fill(tensor, source, ranges, split.axis or 0, self._progress.add)

    def copy_part(self, name: str, view: torch.Tensor, source: str, ranges: Sequence[Range] | None, axis: int) -> None:
        """Fill ``view``, a part of the module's ``name`` or another look at it, with ranges of ``source``, or all."""
        if name in self._left:
            self._asked[name] = self._left.pop(name), source
            _poison(self._asked[name][0])
        self.reader.fill(view, source, ranges, axis, self._progress.add)

    def begin(self) -> Filling:
        """Read what was asked for since the last time."""
        size = sum(tensor.numel() * tensor.element_size() for tensor, _ in self._asked.values())
        filling, self._asked = Filling(self._asked, self.reader.begin(), size), {}
        return filling

    def settle(self, filling: Filling) -> None:
        """Wait until it is filled; raises when a part was forgotten, or is damaged. It may be repacked then."""
        filling.pending.wait()
        for name, (tensor, source) in filling.sources.items():
            if _is_poisoned(tensor):
                raise CheckpointError(
                    f"{self.reader.where}: {source} holds NaN: the checkpoint is damaged, or it lacks a part of {name}"
                )
        filling.sources.clear()

    def set_buffer(self, name: str, value: torch.Tensor) -> None:
        """Put ``value`` in the place of a buffer, in its own precision: DeepSpeed casts buffers with the weights, and
        rotary frequencies in half precision turn far positions by the wrong angle."""
        parent, _, last = name.rpartition(".")
        self.module.get_submodule(parent)._buffers[last] = value.to(self._left.pop(name).device)

    def unfilled(self) -> dict[str, int]:
        """What nothing was copied into yet, and its bytes."""
        return {name: tensor.numel() * tensor.element_size() for name, tensor in self._left.items()}

    def check(self) -> None:
        """Raise when a tensor was forgotten."""
        self._refuse(list(self._left))
        self._progress.finish()

    def _refuse(self, forgotten: list[str]) -> None:
        if forgotten:
            raise CheckpointError(
                f"{self.reader.where} lacks weights of this {type(self.module).__name__}: {_some(forgotten)}. "
                "The checkpoint is incomplete, or its config.json describes another model"
            )


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


def filled_ahead(filler: Filler, units: Iterable[str], ask: Callable[[str], object]) -> Iterator[str]:
    """Each unit when it is full, while the reader is at those that follow. ``ask`` asks for a unit's tensors."""
    waiting: deque[tuple[str, Filling]] = deque()
    # What is on its way when a unit is repacked must not make the sum of all exceed what is there at the end.
    room = min(filler.reader.ahead, filler.bytes // 8)
    for unit in units:
        ask(unit)
        waiting.append((unit, filler.begin()))
        while waiting and sum(filling.bytes for _, filling in islice(waiting, 1, None)) >= room:
            yield _settled(filler, *waiting.popleft())
    while waiting:
        yield _settled(filler, *waiting.popleft())


def _settled(filler: Filler, unit: str, filling: Filling) -> str:
    filler.settle(filling)
    return unit


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


def _poison(tensor: torch.Tensor) -> None:
    with torch.no_grad():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
        elif tensor.dtype in (torch.int32, torch.int64):
            tensor.fill_(_POISON)


def _is_poisoned(tensor: torch.Tensor) -> bool:
    """Whether any element still is. Looked at in pieces: a mask of the whole would cost a quarter of its memory."""
    if not tensor.numel():
        return False
    if tensor.dim() == 2 and tensor.t().is_contiguous():  # row by row it would be read across its memory order
        tensor = tensor.t()
    pieces = torch.split(tensor.detach().flatten(), 1 << 20) if tensor.is_contiguous() else tensor.detach().unbind(0)
    if tensor.is_floating_point():
        return any(bool(piece.isnan().any()) for piece in pieces)
    return tensor.dtype in (torch.int32, torch.int64) and any(bool((piece == _POISON).any()) for piece in pieces)


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


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


@contextlib.contextmanager
def reading(reader: Reader) -> Iterator[Reader]:
    """``reader``, checked at the end and closed in any case."""
    try:
        yield reader
        reader.finish()
    except BaseException as error:
        reader.close(error)
        raise
    reader.close()
