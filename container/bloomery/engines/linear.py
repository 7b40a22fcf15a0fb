"""Linear layers computed the way this processor does them fastest, and weight-only int8.

``optimize_`` changes how weights are stored, never what is computed. ``quantize_`` rounds weights to int8 per output
channel and reports what that cost. Both go layer by layer and free each original before the next, so memory never
doubles; both keep DeepSpeed's all-reduce where a layer has one.

The choice of kernel is a table by processor flags and shape, not a timing at load: ranks that chose differently
would round differently, and could then disagree about a token.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bloomery.engines.kernels import Int8Kernel, Kernel, OneDnnKernel, fast_kernel, is_small, packs
from bloomery.engines.split_safetensors import StoredScales

# A whole head of at least this many weights is shared out between ranks: reading 32 MiB takes longer than summing
# the logits does.
SPLIT_HEAD = 2**23


class KernelLinear(nn.Module):
    """A linear layer over a ``Kernel``, with what sharding adds: a slice of the input or of the output, an all-reduce.

    The bias is added after the all-reduce, once.
    """

    kernel: Kernel
    bias: nn.Parameter | None

    def __init__(
        self,
        kernel: Kernel,
        bias: Tensor | None,
        group: Any = None,
        columns: tuple[int, int] | None = None,
        rows: Rows | None = None,
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.group = group
        self.columns, self.rows = columns, rows
        self.in_features = kernel.in_features
        self.out_features = rows.total if rows else kernel.out_features

    @property
    def weight(self) -> Tensor:
        """What is stored; models ask its dtype or device."""
        return self.kernel.stored

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]"""
        if self.columns is not None:
            x = x[..., self.columns[0] : self.columns[1]]
        y: Tensor = self.kernel(x, self.bias if self.group is None else None)
        if self.group is None:
            return y
        import deepspeed.comm as dist

        if self.rows is not None:
            whole = y.new_zeros(*y.shape[:-1], self.rows.total)
            whole[..., self.rows.start : self.rows.stop] = y
            y = whole
        dist.inference_all_reduce(y, group=self.group)
        return y if self.bias is None else y.add_(self.bias)

    def extra_repr(self) -> str:
        """Shown in ``print(model)``."""
        reduced = ", all-reduced" if self.group is not None else ""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}{reduced}"


@dataclass(frozen=True)
class Rows:
    """The outputs that this rank computes, of ``total``."""

    start: int
    stop: int
    total: int

    @classmethod
    def of_this_rank(cls, total: int) -> Rows:
        """Shares that differ by at most one."""
        rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        return cls(total * rank // ranks, total * (rank + 1) // ranks, total)


@dataclass(frozen=True)
class QuantizedLayer:
    """One layer that is now int8. ``relative_error`` is |W - W'| / |W| (Frobenius norms)."""

    name: str
    relative_error: float
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class QuantizationReport:
    """What int8 saved and what it cost. ``kept`` names the linear layers left as they were, with the reason."""

    layers: tuple[QuantizedLayer, ...]
    kept: tuple[tuple[str, str], ...]

    @property
    def bytes_before(self) -> int:
        """Weights of the converted layers, before."""
        return sum(layer.bytes_before for layer in self.layers)

    @property
    def bytes_after(self) -> int:
        """Weights and scales of the converted layers, after."""
        return sum(layer.bytes_after for layer in self.layers)

    @property
    def max_relative_error(self) -> float:
        """The worst layer's error, 0 when none was converted."""
        return max((layer.relative_error for layer in self.layers), default=0.0)

    def __str__(self) -> str:
        if not self.layers:
            return "int8: no linear layer was converted"
        worst = max(self.layers, key=lambda layer: layer.relative_error)
        return (
            f"int8 weights: {len(self.layers)} linear layers, {self.bytes_before / 2**20:.1f} MiB -> "
            f"{self.bytes_after / 2**20:.1f} MiB; weight error at most {worst.relative_error:.2%} ({worst.name}); "
            f"{len(self.kept)} kept"
        )


@dataclass(frozen=True)
class OptimizationReport:
    """How many linear layers are stored in which way."""

    packed: int = 0
    transposed: int = 0
    widened: int = 0
    shared: int = 0
    split: int = 0
    unchanged: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in vars(self).items() if count) or "no linear layers"


def logits_error(reference: Tensor, logits: Tensor) -> float:
    """|reference - logits| / |reference|: what a change of precision did to a model's answer."""
    wanted = reference.detach().double()
    return float((wanted - logits.detach().double()).norm() / wanted.norm().clamp_min(1e-30))


@torch.no_grad()
def quantize_(
    module: nn.Module, include_head: bool = False, stored: MutableMapping[int, StoredScales] | None = None
) -> QuantizationReport:
    """Turn every linear layer inside ``module`` into weight-only int8, in place.

    ``stored``: scales of weights that were int8 before, by the address where these were filled in: with them nothing
    is rounded a second time. Those that are used are taken out.

    Embeddings stay, and with them a head tied to one; the output head stays too unless ``include_head``, because it
    decides between close tokens and its share of the bytes is small in a large model.
    """
    layers: list[QuantizedLayer] = []
    kept: list[tuple[str, str]] = []
    tied = _embedding_weights(module)
    for found in list(_linears(module)):
        shared = found.weight.data_ptr() in tied
        if shared or (found.is_head and not include_head):
            kept.append((found.name, "tied to an embedding" if shared else "output head"))
            _optimize(found, shared)
        else:
            known = _scales_of(found, stored)
            kernel = Int8Kernel(found.matrix, known.scales if known else None)
            error = known.relative_error if known else _error(found.matrix, kernel.restored)
            layers.append(QuantizedLayer(found.name, error, found.weight.nbytes, kernel.nbytes))
            found.replace(kernel)
    return QuantizationReport(tuple(layers), tuple(kept))


@torch.no_grad()
def optimize_(module: nn.Module) -> OptimizationReport:
    """Store each fp32 or bf16 linear layer inside ``module`` so that this processor decodes fastest, in place."""
    counts = dict.fromkeys(OptimizationReport.__dataclass_fields__, 0)
    tied = _embedding_weights(module)
    for found in list(_linears(module)):
        counts[_optimize(found, shared=found.weight.data_ptr() in tied)] += 1
    return OptimizationReport(**counts)


def _optimize(found: _Found, shared: bool) -> str:
    weight = found.weight
    if found.is_whole_head and weight.numel() >= SPLIT_HEAD:
        # DeepSpeed's injection keeps the whole head on every rank, and every rank would compute all of it.
        rows = Rows.of_this_rank(found.matrix.shape[0])
        part = fast_kernel(found.matrix[rows.start : rows.stop], shared)
        if part is not None:
            found.replace(part, rows)
            return "split"
    kernel = fast_kernel(found.matrix, shared)
    if kernel is not None:
        found.replace(kernel)
        if not isinstance(kernel, OneDnnKernel):
            return "widened"
        return "shared" if shared else "packed"
    small = weight.dtype == torch.float32 and weight.device.type == "cpu" and packs() and is_small(weight)
    if not small or shared or found.transposed:
        return "unchanged"
    weight.data = weight.data.t().contiguous().t()  # same shape, read in the order that small products want
    return "transposed"


@dataclass(frozen=True)
class _Found:
    """A linear layer in its parent, whatever class it has."""

    name: str
    parent: nn.Module
    attribute: str
    layer: Any
    transposed: bool = False  # transformers' Conv1D keeps [in, out]
    group: Any = None
    columns: tuple[int, int] | None = None

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.layer.weight
        return weight

    @property
    def matrix(self) -> Tensor:
        """[out, in]"""
        weight = self.weight.detach()
        return weight.t() if self.transposed else weight

    @property
    def is_head(self) -> bool:
        return self.columns is not None or self.name.rpartition(".")[2] in ("lm_head", "embed_out")

    @property
    def is_whole_head(self) -> bool:
        """Whether several ranks each hold this head whole."""
        return self.is_head and self.group is None and type(self.layer) is nn.Linear and _spans_ranks("world")

    def replace(self, kernel: Kernel, rows: Rows | None = None) -> None:
        group = torch.distributed.group.WORLD if rows else self.group
        new = KernelLinear(kernel, self.layer.bias, group, self.columns, rows)
        new.train(self.layer.training)
        setattr(self.parent, self.attribute, new)
        # The list of found layers still refers to the old layer: let its bytes go now, not at the end.
        if kernel.owns_memory:
            self.layer.weight = None


def _linears(module: nn.Module) -> Iterator[_Found]:
    for prefix, parent in module.named_modules():
        for attribute, layer in parent.named_children():
            name = f"{prefix}.{attribute}" if prefix else attribute
            if type(layer) is nn.Linear:
                yield _Found(name, parent, attribute, layer)
            elif type(layer).__name__ == "Conv1D" and hasattr(layer, "nf"):
                yield _Found(name, parent, attribute, layer, transposed=True)
            elif (made := _sharded(name, parent, attribute, layer)) is not None:
                yield made


def _sharded(name: str, parent: nn.Module, attribute: str, layer: Any) -> _Found | None:
    """DeepSpeed's tensor-parallel layers, known by the forward they run: subclasses only differ in how they cut."""
    layers = sys.modules.get("deepspeed.module_inject.layers")
    if layers is None or not isinstance(layer, layers.TensorParallel_Layer) or layer.weight.dim() != 2:
        return None
    if not layer.weight.numel():
        return None  # a narrow model's head is cut in grains, and some ranks get none of it
    forward: Callable[..., Any] = type(layer).forward
    group = layer.mp_group if _spans_ranks(layer.mp_group) else None
    if forward is layers.LinearAllreduce.forward:
        return _Found(name, parent, attribute, layer, group=group)
    if forward is layers.LmHeadLinearAllreduce.forward:
        sizes = layer._partition_sizes
        start = sum(sizes[: layer.tp_index])
        return _Found(name, parent, attribute, layer, group=group, columns=(start, start + sizes[layer.tp_index]))
    if forward is layers.LinearLayer.forward and not layer.gather_output:
        return _Found(name, parent, attribute, layer)
    return None


def _scales_of(found: _Found, stored: MutableMapping[int, StoredScales] | None) -> StoredScales | None:
    """Of a weight that was filled from int8 weights, perhaps from several, one after the other."""
    if not stored:
        return None
    begin = found.weight.data_ptr()
    parts = [stored.pop(address) for address in sorted(stored) if begin <= address < begin + found.weight.nbytes]
    scales = torch.cat([part.scales for part in parts]) if parts else torch.empty(0)
    if len(scales) != found.matrix.shape[0]:
        return None
    return StoredScales(scales, max(part.relative_error for part in parts))


def _spans_ranks(group: Any) -> bool:
    """Whether a process group, or "world", has several ranks."""
    if group is None or not torch.distributed.is_initialized():
        return False
    return torch.distributed.get_world_size(None if group == "world" else group) > 1


def _embedding_weights(module: nn.Module) -> set[int]:
    weights = (getattr(child, "weight", None) for child in module.modules() if "Embedding" in type(child).__name__)
    return {weight.data_ptr() for weight in weights if isinstance(weight, Tensor)}


def resident_bytes(module: nn.Module) -> int:
    """Bytes of all weights inside ``module``, packed ones too, shared ones once."""
    stored: list[Tensor] = [*module.parameters(), *module.buffers()]
    tensors = {t.data_ptr(): t.nbytes for t in stored}
    kernels = (k for k in module.modules() if isinstance(k, Kernel) and k.owns_memory)
    return sum(tensors.values()) + sum(k.nbytes for k in kernels if not list(k.parameters()))


def _error(matrix: Tensor, restored: Callable[[int, int], Tensor]) -> float:
    """Row blocks, so that no second matrix in full precision ever exists."""
    squared = total = 0.0
    step = max(1, 2**20 // max(1, matrix.shape[1]))
    for start in range(0, matrix.shape[0], step):
        block = matrix[start : start + step].float()
        squared += float((block - restored(start, start + step)).square().sum())
        total += float(block.square().sum())
    return (squared / total) ** 0.5 if total else 0.0
