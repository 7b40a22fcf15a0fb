"""Between the decoder loop of transformers 5 and the layers that DeepSpeed injected: what each is passed and returns.

Keys and values live inside DeepSpeed's layers, so that a process runs one generation at a time. The caller's cache
object only learns how many tokens were seen.
"""

from __future__ import annotations

import abc
import inspect
import weakref
from typing import Any

import deepspeed
import torch
from deepspeed.ops.transformer.inference import DeepSpeedTransformerInference
from torch import Tensor, nn
from transformers.cache_utils import CacheLayerMixin

from bloomery.engines import injection_cpu
from bloomery.errors import BadRequestError, UnsupportedRequestError

# What hides a token in a mask for DeepSpeed's kernels: finite in fp16, and the value they use themselves.
KERNEL_MASK_FLOOR = -1.0e4


class Generation(abc.ABC):
    """The one sequence of forward passes whose keys and values DeepSpeed holds: a prompt, then token after token."""

    def __init__(self, first: Any, max_tokens: int) -> None:
        self.first, self.max_tokens = first, max_tokens
        self._owner: weakref.ref[Any] | None = None
        self._batch = 0
        self.prompt = True

    def advance(self, states: Tensor, mask: Tensor | None, alibi: Tensor | None, cache: Any) -> None:
        """One forward pass begins, with new ``states`` [batch, tokens, hidden]: refuse what the kernels cannot do."""
        batch, tokens, _ = states.shape
        past = cache.get_seq_length() if cache is not None else 0
        self.prompt = past == 0
        if past and tokens > 1:
            raise UnsupportedRequestError(
                f"with kernel injection a prompt cannot be continued by {tokens} tokens at once: DeepSpeed's kernels "
                f"take one token after the prompt; send the whole text as the prompt, or use kernel_inject=False"
            )
        if past and (self._owner is None or self._owner() is not cache.layers[0] or batch != self._batch):
            raise UnsupportedRequestError(
                "with kernel injection one generation runs at a time, with the cache and the batch that its prompt "
                "had, because the keys and values lie inside DeepSpeed's layers"
            )
        if past + tokens > self.max_tokens:
            raise BadRequestError(
                f"{past + tokens} tokens exceed max_tokens={self.max_tokens}, the room for prompt and answer that "
                f"this model was loaded with"
            )
        if cache is not None:
            if self.prompt:
                self._own(cache)
            cache.layers[0].tokens = past + tokens
        self._batch = batch
        self.prepare(states, past, mask, alibi)

    def _own(self, cache: Any) -> None:
        counter = TokenCounter()
        if cache.layers:
            cache.layers[0] = counter
        else:
            cache.layers.append(counter)
        self._owner = weakref.ref(counter)

    @abc.abstractmethod
    def prepare(self, states: Tensor, past: int, mask: Tensor | None, alibi: Tensor | None) -> None:
        """Make what all layers of this pass share."""

    @abc.abstractmethod
    def call(self, layer: Any, states: Tensor) -> Any:
        """Run one injected layer."""


class CpuGeneration(Generation):
    """Shares one mask and one rotary table among the layers of a pass."""

    def __init__(self, first: Any, max_tokens: int) -> None:
        super().__init__(first, max_tokens)
        self.shared = injection_cpu.Attended()
        self._rotary = injection_cpu.RotaryTable(first.config) if first.config.rotary_dim > 0 else None
        self._heads = first.attention.num_attention_heads_per_partition
        group = first.attention.mp_group
        self._first_head = self._heads * deepspeed.comm.get_rank(group) if first.config.mp_size > 1 else 0

    def prepare(self, states: Tensor, past: int, mask: Tensor | None, alibi: Tensor | None) -> None:
        """BLOOM's linear biases of this rank's heads become part of the mask, once for all layers."""
        mask = _additive(mask, states, past, torch.finfo(states.dtype).min)
        if alibi is not None:
            batch, (_, queries, keys) = len(states), alibi.shape
            heads = slice(self._first_head, self._first_head + self._heads)
            mask = mask + alibi.view(batch, -1, queries, keys)[:, heads]
        self.shared.past, self.shared.mask = past, mask
        self.shared.local_masks.clear()
        if self._rotary:
            self.shared.rotary = self._rotary.rows(past, past + states.shape[1], states.dtype)

    def call(self, layer: Any, states: Tensor) -> Any:
        """The mask and the rest are already where ``injection_cpu`` reads them."""
        return layer(states)


class KernelGeneration(Generation):
    """Speaks to DeepSpeed's kernels. Written from their source; run with their torch fallbacks, not on a GPU."""

    def __init__(self, first: Any, max_tokens: int) -> None:
        super().__init__(first, max_tokens)
        self._room = 0
        self._arguments: dict[str, Any] = {}

    def prepare(self, states: Tensor, past: int, mask: Tensor | None, alibi: Tensor | None) -> None:
        """The workspace is sized by the first batch that layer 0 meets: ask again when a larger one comes."""
        if self.prompt:
            if len(states) > self._room:
                self._room = len(states)
                self.first._should_allocate_workspace = True
            # The kernels take one token for a continuation, whatever it is: only an empty cache makes it a prompt.
            DeepSpeedTransformerInference.reset_cache()
        additive = _additive(mask, states, past, KERNEL_MASK_FLOOR)  # four dimensions: two are read as BERT's mask
        if alibi is None:
            self._arguments = {"attention_mask": additive}
        else:
            # BLOOM's layer multiplies by -10000 itself: 1 hides.
            self._arguments = {"attention_mask": (additive < -1.0).to(torch.int64), "alibi": alibi}

    def call(self, layer: Any, states: Tensor) -> Any:
        """BLOOM's layer keeps its keys and values itself, and drops them only for prompts of two tokens or more."""
        if self.prompt:
            layer.layer_past = None
        return layer(states, **self._arguments)


class InjectedLayer(nn.Module):
    """One injected layer, called and answering as the decoder loop of transformers 5 does."""

    def __init__(
        self, layer: nn.Module, original: type, is_first: bool, returns_tuple: bool, generation: Generation
    ) -> None:
        super().__init__()
        self.layer = layer
        self._parameters_of_original = list(inspect.signature(original.forward).parameters)[1:]  # type: ignore
        self._is_first, self._returns_tuple, self._generation = is_first, returns_tuple, generation

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Hidden states in and out, [batch, tokens, hidden]."""
        if args:
            kwargs.update(zip(self._parameters_of_original, args, strict=False))
        states = kwargs["hidden_states"]
        if self._is_first:
            cache = kwargs.get("past_key_values")
            cache = kwargs.get("layer_past") if cache is None else cache
            self._generation.advance(states, kwargs.get("attention_mask"), kwargs.get("alibi"), cache)
        output = self._generation.call(self.layer, states)
        while isinstance(output, tuple):
            output = output[0]
        return (output, None) if self._returns_tuple else output


class TokenCounter(CacheLayerMixin):  # type: ignore[misc]
    """Stands in the caller's cache for all layers: it knows how many tokens DeepSpeed has seen, and holds none."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.tokens = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to make."""

    def get_seq_length(self) -> int:
        """Tokens seen."""
        return self.tokens

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Key length and offset of the mask."""
        return self.tokens + query_length, 0

    def get_max_length(self) -> int:
        """No maximum that transformers need know."""
        return -1

    def update(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Never called: the attention that would is replaced."""
        raise UnsupportedRequestError(_NO_CACHE)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search."""
        raise UnsupportedRequestError(_NO_CACHE)

    def crop(self, max_length: int) -> None:
        """Assisted decoding, or a prompt that is taken up again."""
        raise UnsupportedRequestError(_NO_CACHE)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Several answers to one prompt."""
        raise UnsupportedRequestError(_NO_CACHE)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Rows that leave the batch."""
        raise UnsupportedRequestError(_NO_CACHE)


_NO_CACHE = (
    "with kernel injection the keys and values lie inside DeepSpeed's layers, so that beam search, assisted decoding "
    "and the re-use of a prompt are not available: use one beam, or load the model with kernel_inject=False"
)


def _additive(mask: Tensor | None, states: Tensor, past: int, floor: float) -> Tensor:
    """The mask as numbers to add to the scores, [batch, 1, query tokens, key tokens], with ``floor`` for hidden."""
    if mask is None:
        batch, tokens, _ = states.shape
        shape = (batch, 1, tokens, past + tokens)
        return torch.full(shape, floor, dtype=states.dtype, device=states.device).triu(1 + past)
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=states.dtype, device=mask.device).masked_fill_(~mask, floor)
    return mask if mask.dtype == states.dtype and floor < KERNEL_MASK_FLOOR else mask.to(states.dtype).clamp(min=floor)
