"""What one rank needs of its accelerator: weights, cache, activations, and what CUDA takes for itself.

Weights and cache follow from the model. The rest are assumptions, named here and in docs/planning.md, and not measured:
bloomery has not run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bloomery.sagemaker.planning.form import Form
from bloomery.sagemaker.planning.shape import ModelShape

MIB = 1 << 20
CONTEXT = 768 * MIB  # CUDA's context, loaded kernels, cuBLAS' workspace
COMMUNICATION = 512 * MIB  # NCCL's buffers, where there are several ranks
# Of an accelerator's memory: the driver, error correction, and holes of the allocator take the rest.
USABLE = 0.92
_HIDDEN_COPIES = 6  # of the hidden states at once in a layer: residual, norm, query, key, value, attention's output
_INJECTED_COPIES = 10  # in the workspace of DeepSpeed's layers (its inference_context.h)
_LOGITS_COPIES = 3  # fp32: as computed, processed, as probabilities
LARGEST = 1 << 20  # batch or length beyond which nothing is searched


@dataclass(frozen=True)
class RankMemory:
    """Bytes on one accelerator."""

    weights: int
    cache: int
    activations: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.activations + self.overhead


def cache_bytes(shape: ModelShape, form: Form, batch: int, length: int, ranks: int = 1) -> int:
    """Keys and values of ``batch`` sequences of ``length`` tokens, prompt and answer together, on one of ``ranks``.

    2 (key, value) x layers x key/value heads of the rank x head size x tokens x bytes of a number.
    """
    heads = max(1, shape.heads.key_value // ranks)
    return 2 * shape.caches * shape.layers * heads * shape.head_size * batch * length * form.itemsize


def activation_bytes(shape: ModelShape, form: Form, batch: int, length: int, ranks: int = 1) -> int:
    """The most that one layer, or the logits, take at once: while a prompt of the whole ``length`` is read.

    Includes one layer's cache again, because a cache that grows is copied layer by layer.
    """
    tokens = batch * length
    copies = _INJECTED_COPIES if form.injected else _HIDDEN_COPIES
    layer = tokens * (copies * shape.hidden + 2 * shape.inner // ranks) * form.itemsize
    if shape.scores or form.injected:  # in the model's format, and as fp32 for the softmax
        layer += batch * (shape.heads.query // ranks) * length * length * (form.itemsize + 4)
    logits = _LOGITS_COPIES * batch * shape.vocabulary * 4
    grown = cache_bytes(shape, form, batch, length, ranks) // shape.layers if shape.layers else 0
    return max(layer, logits) + grown


def rank_memory(shape: ModelShape, form: Form, weights: int, batch: int, length: int, ranks: int) -> RankMemory:
    """Of the rank that holds ``weights`` bytes of weights."""
    return RankMemory(
        weights,
        cache_bytes(shape, form, batch, length, ranks),
        activation_bytes(shape, form, batch, length, ranks),
        CONTEXT + (COMMUNICATION if ranks > 1 else 0),
    )


def largest(fits: Callable[[int], bool], most: int = LARGEST) -> int:
    """The largest number up to ``most`` that still fits, 0 when 1 does not."""
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, high * 2
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
