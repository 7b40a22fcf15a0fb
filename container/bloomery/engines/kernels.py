"""Matrix products y = x Wᵀ + b, each over its own way of storing W. All take [..., in] and return [..., out].

Measured on AVX2 cores without AVX-512, one thread, W of 4096 x 1024 (microseconds, rows of x = 1, 4, 16, 64):

    fp32 torch       1240   3504   4111    9039
    fp32 packed      1492   1956   2986    9049     oneDNN's blocked layout
    bf16 torch       1182   3853  13063   52311     emulated: linear in the rows
    bf16 widened        -   2404   4100    8200     blocks of W widened to fp32, then fp32
    int8 torch       1253   1353   3524   13028     bf16 activations, fp32 sums (with fp32 activations: scalar code)
    int8 widened        -      -      -    7700
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from bloomery.engines import cpu

# Below this many weights oneDNN's fixed cost per call (some 20 microseconds) exceeds what packing saves.
SMALL = 2**18
# A block of this many weights per thread, widened to fp32, is still in the last-level cache when the product reads it.
WIDEN_BLOCK = 2**20
# Up to this many rows the emulated or mixed product beats widening.
BF16_NATIVE_ROWS = 2
INT8_NATIVE_ROWS = 16
# torch's int8 product reads past the end of rows that are not whole vectors: a crash at 7 or 100 columns (torch 2.13).
INT8_NATIVE_COLUMNS = 32
# oneDNN packs for an expected number of rows; 4 is as good as any from 2 to 16, and not slower for a prompt.
PACK_ROWS = 4


# Torch offers these to its own compiler; they are stable since 2.0 and have no public name.
_reorder: Any = torch.ops.mkldnn._reorder_linear_weight
_pointwise: Any = torch.ops.mkldnn._linear_pointwise


class Kernel(nn.Module):
    """A stored matrix that multiplies."""

    owns_memory = True  # False: the weight belongs to somebody else (a tied embedding) and must stay

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.out_features, self.in_features = out_features, in_features

    @property
    @abstractmethod
    def stored(self) -> Tensor:
        """The weight as it is kept."""

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self.stored.nbytes


class OneDnnKernel(Kernel):
    """fp32 through oneDNN: packed into its own layout, or as it lies when the weight is shared with an embedding.

    Plain torch (MKL) is at its worst at 2 to 16 rows, which is decoding; oneDNN beats it 1.1 to 2.7 times even
    without packing, and 1.3 to 2.7 times with.
    """

    def __init__(self, matrix: Tensor, pack: bool) -> None:
        super().__init__(*matrix.shape)
        self.owns_memory = pack
        # Not a parameter or buffer: an opaque tensor breaks state_dict, .to() and memory formats.
        self._weight = _reorder(matrix.contiguous(), PACK_ROWS) if pack else matrix

    @property
    def stored(self) -> Tensor:
        return self._weight

    @property
    def nbytes(self) -> int:
        return self.out_features * self.in_features * 4

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        product: Tensor = _pointwise(x, self._weight, bias, "none", [], "")
        return product


class WideningKernel(Kernel):
    """bf16 storage where the processor has no bf16 arithmetic: blocks are widened to fp32 as they are used."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(*matrix.shape)
        self.weight = nn.Parameter(matrix, requires_grad=False)

    @property
    def stored(self) -> Tensor:
        return self.weight

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if x.numel() // self.in_features <= BF16_NATIVE_ROWS:
            return F.linear(x, self.weight, bias)
        return _by_blocks(x, self.out_features, bias, lambda a, b: self.weight[a:b].float())


class Int8Kernel(Kernel):
    """Weight-only int8 with one scale per output channel; ``scales``: those it was rounded with before, if it was."""

    def __init__(self, matrix: Tensor, scales: Tensor | None = None) -> None:
        super().__init__(*matrix.shape)
        weight = torch.empty(matrix.shape, dtype=torch.int8, device=matrix.device)
        known, scales = scales, torch.empty(matrix.shape[0], dtype=torch.bfloat16, device=matrix.device)
        step = _rows_per_block(self.in_features)
        for start in range(0, self.out_features, step):
            block = matrix[start : start + step].float()
            if known is None:
                scale = _bf16_at_least(block.abs().amax(dim=1).clamp_min_(1e-20) / 127)
            else:
                scale = known[start : start + step].to(matrix.device)
            scales[start : start + step] = scale
            weight[start : start + step] = (block / scale.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8)
        # Not buffers: .to(dtype) would turn the scales into what the product refuses.
        self._weight, self._scales = weight, scales
        whole = self.in_features % INT8_NATIVE_COLUMNS == 0
        self._native = whole and matrix.device.type == "cpu" and cpu.has_fast_int8_weights()

    @property
    def stored(self) -> Tensor:
        return self._weight

    @property
    def nbytes(self) -> int:
        return self._weight.nbytes + self._scales.nbytes

    def restored(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` in fp32."""
        return self._weight[start:stop].float() * self._scales[start:stop].float()[:, None]

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.numel() // self.in_features
        if rows > INT8_NATIVE_ROWS or not self._native:
            return _by_blocks(x, self.out_features, bias, self.restored)
        flat = x.reshape(rows, self.in_features).to(torch.bfloat16)
        y: Tensor = torch.ops.aten._weight_int8pack_mm(flat, self._weight, self._scales)
        y = y.to(x.dtype).view(*x.shape[:-1], self.out_features)
        return y if bias is None else y.add_(bias)


def fast_kernel(matrix: Tensor, shared: bool = False) -> Kernel | None:
    """The fastest kernel for a loaded [out, in] matrix here, None where plain torch is.

    ``shared``: somebody else keeps the same storage (a tied embedding), so a packed copy would be extra memory.
    """
    if matrix.device.type != "cpu":
        return None
    if matrix.dtype == torch.bfloat16:
        return None if cpu.has_fast_bf16() else WideningKernel(matrix)
    if matrix.dtype != torch.float32 or not packs() or is_small(matrix):
        return None
    return OneDnnKernel(matrix, pack=not shared)


def packs() -> bool:
    """Whether oneDNN's packed fp32 products are there and worth it."""
    return cpu.has_avx2() and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def is_small(matrix: Tensor) -> bool:
    """Whether a plain product is faster than oneDNN's."""
    return matrix.numel() < SMALL


def _rows_per_block(in_features: int) -> int:
    return max(1, WIDEN_BLOCK * torch.get_num_threads() // max(1, in_features))


def _by_blocks(x: Tensor, out_features: int, bias: Tensor | None, rows: Callable[[int, int], Tensor]) -> Tensor:
    """x times a matrix that ``rows`` gives in fp32, block by block; in fp32, answered in x's dtype."""
    flat = x.reshape(-1, x.shape[-1]).float()
    y = torch.empty(flat.shape[0], out_features, dtype=torch.float32, device=x.device)
    step = _rows_per_block(x.shape[-1])
    for start in range(0, out_features, step):
        stop = min(start + step, out_features)
        torch.mm(flat, rows(start, stop).t(), out=y[:, start:stop])
    if bias is not None:
        y += bias
    return y.to(x.dtype).view(*x.shape[:-1], out_features)


def _bf16_at_least(scale: Tensor) -> Tensor:
    """The nearest bf16 not below ``scale``: rounding down would clip the channel's largest weight."""
    rounded = scale.to(torch.bfloat16)
    return torch.where(rounded.float() < scale, rounded * (1 + 2**-7), rounded)
