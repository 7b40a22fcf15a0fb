"""What an injected DeepSpeed layer computes on a CPU, in the places where its CUDA kernels would be.

DeepSpeed's own torch fallbacks cannot be used (0.19.8): the MLP applies exact GELU whatever the model's activation
is (OPT's logits are off by 0.98, silently), BLOOM's softmax takes row 0's alibi for every row of the batch and halves
the heads twice under tensor parallelism, rotary styles and local windows are ignored. The classes here are bound in
their place. Every matrix product is an ``nn.Linear`` that others may exchange (``injected_linears``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from deepspeed import comm
from torch import Tensor, nn
from torch.nn import functional

AllReduce = Callable[[Tensor], object]

# The cache grows in steps of this many tokens, doubling: a step of decoding copies one token, never the whole cache.
GROWTH = 64


@dataclass
class Attended:
    """What all layers of one forward pass share. [batch, heads or 1, query tokens, key tokens]"""

    past: int = 0
    mask: Tensor | None = None
    local_masks: dict[int, Tensor] = field(default_factory=dict)
    rotary: tuple[Tensor, Tensor] | None = None

    def local_mask(self, window: int) -> Tensor | None:
        """The mask of a layer that sees only the last ``window`` tokens (GPT-Neo)."""
        if window not in self.local_masks:
            assert self.mask is not None
            queries, keys = self.mask.shape[-2:]
            position = torch.arange(self.past, self.past + queries).unsqueeze(1)
            outside = torch.arange(keys).unsqueeze(0) <= position - window
            self.local_masks[window] = self.mask.masked_fill(outside, torch.finfo(self.mask.dtype).min)
        return self.local_masks[window]


class KeyValueCache:
    """One layer's keys and values [2, batch, heads, tokens, head_dim], in a buffer that is kept between requests."""

    def __init__(self) -> None:
        self._buffer = torch.empty(2, 0, 0, 0, 0)

    def append(self, new: Tensor, past: int) -> Tensor:
        """Put new tokens behind ``past`` ones and return all of them."""
        batch, tokens = new.shape[1], past + new.shape[3]
        if self._buffer.shape[1] < batch or self._buffer.shape[3] < tokens:
            self._grow(new, tokens, past)
        self._buffer[:, :batch, :, past:tokens] = new
        return self._buffer[:, :batch, :, :tokens]

    def _grow(self, new: Tensor, tokens: int, past: int) -> None:
        room = -(-max(tokens, 2 * past) // GROWTH) * GROWTH
        _, batch, heads, _, width = new.shape
        old, self._buffer = self._buffer, new.new_empty(2, batch, heads, room, width)
        if past:
            self._buffer[:, :, :, :past] = old[:, :batch, :, :past]


class CpuQkvProjection(nn.Module):
    """Stands for ``qkv_func``: norm, then query, key and value in one product."""

    def __init__(self, linear: nn.Linear, epsilon: float) -> None:
        super().__init__()
        self.linear, self.epsilon = linear, epsilon

    def forward(self, input: Tensor, gamma: Tensor, beta: Tensor, **_: Any) -> tuple[Tensor, Tensor]:  # noqa: A002
        """DeepSpeed wants the projection and the normed input (GPT-J's MLP reads it)."""
        norm = functional.layer_norm(input, gamma.shape, gamma, beta, self.epsilon)
        return self.linear(norm), norm


class CpuAttention:
    """Stands for ``compute_attention``: rotary embedding, cache, and softmax(QK)V of this rank's heads."""

    def __init__(self, attention: Any, shared: Attended, interleaved: bool) -> None:
        config = attention.config
        self.shared = shared
        self.heads = attention.num_attention_heads_per_partition
        self.interleaved = interleaved
        # DeepSpeed keeps the square root of the divisor, because its kernels scale queries and keys alike.
        self.scale = 1.0 / attention.norm_factor**2 if config.scale_attention else 1.0
        self.window = config.window_size if config.local_attention else 0
        self.rotary_dim = max(0, config.rotary_dim)
        self.every_two = config.rotate_every_two
        self.cache = KeyValueCache()

    def __call__(self, qkv_out: tuple[Tensor, Tensor], **_: Any) -> tuple[Tensor, None, None]:
        """[batch, tokens, 3 x width] to [batch, tokens, width]; keys and values stay here."""
        qkv = qkv_out[0]
        batch, tokens, width = qkv.shape
        if self.interleaved:
            qkv = qkv.view(batch, tokens, self.heads, 3, -1).transpose(2, 3)
        else:
            qkv = qkv.view(batch, tokens, 3, self.heads, -1)
        if self.shared.rotary:
            rotate_(qkv[:, :, :2], *self.shared.rotary, self.every_two)
        keys, values = self.cache.append(qkv[:, :, 1:].permute(2, 0, 3, 1, 4), self.shared.past)
        context = functional.scaled_dot_product_attention(
            qkv[:, :, 0].transpose(1, 2),
            keys,
            values,
            attn_mask=self.shared.local_mask(self.window) if self.window else self.shared.mask,
            scale=self.scale,
        )
        return context.transpose(1, 2).reshape(batch, tokens, width // 3), None, None


class CpuAttentionOutput(nn.Module):
    """Stands for ``vector_matmul_func``: the output projection, summed over the ranks where the MLP reads it."""

    def __init__(self, linear: nn.Linear, all_reduce: AllReduce | None) -> None:
        super().__init__()
        self.linear, self.all_reduce = linear, all_reduce

    def forward(self, input: Tensor, weight: Any) -> Tensor:  # noqa: A002
        """The weight that DeepSpeed passes is a placeholder; ``linear`` holds it."""
        output: Tensor = self.linear(input)
        if self.all_reduce:
            self.all_reduce(output)
        return output


class CpuMlp(nn.Module):
    """Stands for ``mlp_gemm_func``, and for ``fused_gemm_gelu`` where the norm was the attention's."""

    def __init__(self, mlp: Any, linear_in: nn.Linear, linear_out: nn.Linear, activation: nn.Module) -> None:
        super().__init__()
        self.linear_in, self.linear_out, self.activation = linear_in, linear_out, activation
        self.epsilon, self.after_attention = mlp.config.epsilon, mlp.config.mlp_after_attn

    def forward(
        self,
        input: Tensor,  # noqa: A002
        residual: Tensor | None = None,
        input_bias: Tensor | None = None,
        gamma: Tensor | None = None,
        beta: Tensor | None = None,
        **_: Any,
    ) -> Any:
        """The MLP's share of this rank and the residual to add to it; only the share where there is no norm."""
        if gamma is None:
            return self._mlp(input)
        assert residual is not None
        if self.after_attention:
            residual = residual + input if input_bias is None else (residual + input).add_(input_bias)
        return self._mlp(functional.layer_norm(residual, gamma.shape, gamma, beta, self.epsilon)), residual

    def _mlp(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.linear_out(self.activation(self.linear_in(hidden)))
        return output


class CpuResidualAdd(nn.Module):
    """Stands for ``residual_add_func``: sums the ranks' shares, then adds what every rank holds whole.

    DeepSpeed adds first, divided by the number of ranks, and sums then, into the layer's own input.
    """

    def __init__(self, after_attention: bool, all_reduce: AllReduce | None) -> None:
        super().__init__()
        self.after_attention, self.all_reduce = after_attention, all_reduce

    def forward(
        self,
        hidden_state: Tensor,
        residual: Tensor,
        add_bias: bool,
        attention_output: Tensor,
        attention_bias: Tensor,
        final_bias: Tensor,
        residual_add: Tensor | None,
    ) -> Tensor:
        """[batch, tokens, hidden], a new tensor."""
        if self.after_attention:
            assert residual_add is not None
            residual = residual_add  # holds the attention's output and bias already
        else:
            hidden_state = hidden_state.add_(attention_output)
        if self.all_reduce:
            self.all_reduce(hidden_state)
        hidden_state.add_(residual).add_(final_bias)
        return hidden_state if self.after_attention or not add_bias else hidden_state.add_(attention_bias)


def rotate_(states: Tensor, cos: Tensor, sin: Tensor, every_two: bool) -> None:
    """Rotary embedding, in place, of [batch, tokens, 2, heads, head_dim]: pairs of neighbours (GPT-J) or of halves
    (GPT-NeoX)."""
    width = cos.shape[-1]
    turning = states[..., :width]
    if every_two:
        turned = torch.stack((-turning[..., 1::2], turning[..., ::2]), -1).flatten(-2)
    else:
        turned = torch.cat((-turning[..., width // 2 :], turning[..., : width // 2]), -1)
    turning.mul_(cos).add_(turned.mul_(sin))


class RotaryTable:
    """Cosines and sines of the first positions, [tokens, 1, 1, rotary_dim], made longer when needed.

    Positions count from the left edge, padding included, as DeepSpeed's kernels do: the embedding is relative.
    """

    def __init__(self, config: Any) -> None:
        self.width, self.theta, self.every_two = config.rotary_dim, config.rope_theta, config.rotate_every_two
        self._cos = self._sin = torch.empty(0)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The table between two positions."""
        if len(self._cos) < stop:
            frequencies = self.theta ** -(torch.arange(0, self.width, 2, dtype=torch.float32) / self.width)
            angles = torch.outer(torch.arange(max(2 * len(self._cos), stop, GROWTH), dtype=torch.float32), frequencies)
            angles = angles.repeat_interleave(2, -1) if self.every_two else torch.cat((angles, angles), -1)
            self._cos, self._sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
        return self._cos[start:stop].to(dtype), self._sin[start:stop].to(dtype)


def install(layer: Any, shared: Attended, activation: nn.Module, interleaved: bool) -> None:
    """Bind the classes above into one ``DeepSpeedTransformerInference`` layer, which then holds its weights in them."""
    attention, mlp = layer.attention, layer.mlp
    group = attention.mp_group if layer.config.mp_size > 1 else None
    after_attention = layer.config.mlp_after_attn

    def all_reduce(tensor: Tensor) -> object:
        # Takes the shared-memory operator when it is loaded; what DeepSpeed's own layer calls never does.
        return comm.inference_all_reduce(tensor, group=group)

    reduce = all_reduce if group is not None else None
    attention.mp_group = mlp.mp_group = None  # the classes above sum; DeepSpeed would once more
    attention.qkv_func = CpuQkvProjection(_take_linear(attention, "attn_qkvw", "attn_qkvb"), layer.config.epsilon)
    # An instance attribute, because a method of the class wins over a registered submodule.
    object.__setattr__(attention, "compute_attention", CpuAttention(attention, shared, interleaved))
    attention.vector_matmul_func = CpuAttentionOutput(
        _take_linear(attention, "attn_ow"), reduce if after_attention else None
    )
    linear_in, linear_out = _take_linear(mlp, "inter_w", "inter_b"), _take_linear(mlp, "output_w")
    mlp.mlp_gemm_func = mlp.fused_gemm_gelu = CpuMlp(mlp, linear_in, linear_out, activation)
    mlp.residual_add_func = CpuResidualAdd(after_attention, reduce)


def injected_linears(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Every matrix product inside the injected layers: its owner, the attribute's name, and the module.

    Setting the attribute exchanges the product (prepacked, int8). Empty where CUDA kernels compute.
    """
    for module in model.modules():
        if isinstance(module, CpuQkvProjection | CpuAttentionOutput | CpuMlp):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    yield module, name, child


def _take_linear(owner: nn.Module, weight: str, bias: str | None = None) -> nn.Linear:
    """The parameters as an ``nn.Linear``; the owner keeps placeholders, because DeepSpeed asks whether they are None.

    DeepSpeed holds [input, output] matrices, torch's Linear [output, input]: no copy is made of one that already
    lies in memory that way.
    """
    held: Tensor = getattr(owner, weight).data.t()
    linear = nn.Linear(held.shape[1], held.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(held.contiguous(), requires_grad=False)
    if bias and getattr(owner, bias) is not None:
        linear.bias = nn.Parameter(getattr(owner, bias).data, requires_grad=False)
        delattr(owner, bias)
        setattr(owner, bias, torch.empty(0))
    delattr(owner, weight)
    setattr(owner, weight, torch.empty(0))
    return linear
