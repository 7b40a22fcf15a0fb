"""DeepSpeed's kernel injection (``replace_with_kernel_inject=True``) under transformers 5.

DeepSpeed replaces each decoder layer by its own; an adapter around every one of them translates between what the
decoder loop of transformers 5 passes and expects, and what the injected layer does (upstream gave up on BLOOM after
transformers 4.43.4, pull request 6766, and from 4.44 on the other families broke one after another). Keys and values
live inside DeepSpeed; the cache object of the caller only learns how many tokens were seen.

On a CPU the layers compute with ``injection_cpu``. On CUDA DeepSpeed's kernels compute; that path follows DeepSpeed's
source (0.19.8) and has NOT been run on a GPU.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import io
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import deepspeed
import torch
from deepspeed.module_inject import containers, replace_module
from deepspeed.module_inject.containers.features.meta_tensor import MetaTensorContainer
from deepspeed.ops.transformer.inference import DeepSpeedTransformerInference
from deepspeed.ops.transformer.inference.ds_attention import DeepSpeedSelfAttention
from deepspeed.ops.transformer.inference.ds_mlp import DeepSpeedMLP
from deepspeed.ops.transformer.inference.op_binding.base import BaseOp
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.cache_utils import CacheLayerMixin

from bloomery.engines import injection_cpu
from bloomery.engines.injection_families import InjectedFamily, check_injectable
from bloomery.engines.injection_weights import injected_layers
from bloomery.errors import BadRequestError, UnsupportedModelError

# What hides a token in a mask for DeepSpeed's CUDA kernels: finite in fp16, and the value they use themselves.
CUDA_MASK_FLOOR = -1.0e4

_injected: weakref.ref[nn.Module] | None = None


def inject(
    model: nn.Module,
    *,
    dtype: torch.dtype,
    tensor_parallel: int,
    max_tokens: int,
    fill: Callable[[nn.Module], None] | None = None,
) -> nn.Module:
    """Replace the decoder layers by DeepSpeed's, each rank holding its share, and return the model.

    A model built on the meta device comes back from DeepSpeed with this rank's tensors holding anything, buffers
    included: ``fill`` must write every one of them and prove it (``injection_weights.fill_injected`` does both).
    """
    global _injected
    config: Any = model.config
    family = check_injectable(config, tensor_parallel)
    _check_alone()
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    if on_meta and fill is None:
        raise ValueError("a model on the meta device has no weights: pass fill")
    model.eval()
    loaded: Any = model
    loaded.set_attn_implementation("eager")  # the one that passes an additive mask of four dimensions
    original = {name: type(module) for name, module in model.named_modules()}
    _give_what_policies_read(model, config)
    module: nn.Module
    with _upstream_repaired(), contextlib.redirect_stdout(io.StringIO()):
        module = deepspeed.init_inference(
            model,
            dtype=dtype,
            replace_with_kernel_inject=True,
            tensor_parallel={"tp_size": tensor_parallel},
            max_out_tokens=max_tokens,
            min_out_tokens=1,
        ).module
    layers = dict(injected_layers(module))
    if len(layers) != config.num_hidden_layers:
        raise UnsupportedModelError(
            f"DeepSpeed replaced {len(layers)} of the {config.num_hidden_layers} layers of this {config.model_type} "
            f"model; load it with kernel_inject=False"
        )
    if on_meta and fill is not None:
        fill(module)
    _adapt(module, layers, original, family, max_tokens)
    _injected = weakref.ref(module)
    return module


def _check_alone() -> None:
    if _injected is not None and _injected() is not None:
        gc.collect()
    if _injected is not None and _injected() is not None:
        raise UnsupportedModelError(
            "this process already holds a model with injected kernels, and DeepSpeed's counters and key-value "
            "workspace belong to the process: load the second model in its own group, or with kernel_inject=False"
        )


def _give_what_policies_read(model: nn.Module, config: Any) -> None:
    """GPT-NeoX: attributes that transformers 5 dropped and DeepSpeed's policy reads."""
    for module in model.modules():
        if type(module).__name__ == "GPTNeoXAttention":
            attention: Any = module
            attention.hidden_size, attention.num_attention_heads = config.hidden_size, config.num_attention_heads


@contextlib.contextmanager
def _upstream_repaired() -> Iterator[None]:
    """Everything of DeepSpeed's that must be different while layers are replaced, and is put back afterwards."""
    container_types = containers.DS_BloomContainer, containers.DS_GPT2Container
    operators = BaseOp.inference_module
    # Counters of the process: an engine resets them only when the one before it got as far as a workspace.
    DeepSpeedTransformerInference.layer_id = 0
    DeepSpeedSelfAttention.num_layers = 0
    if DeepSpeedTransformerInference.workspace is not None:
        if DeepSpeedTransformerInference.workspace.is_allocated():
            DeepSpeedTransformerInference.workspace.release_workspace()
        DeepSpeedTransformerInference.workspace = None
    containers.DS_BloomContainer = _bloom_container(container_types[0])
    containers.DS_GPT2Container = _gpt2_container(container_types[1])
    if deepspeed.get_accelerator().device_name() == "cpu":
        # InferenceBuilder().load() raises "This op had not been implemented on CPU backend"; an object that has none
        # of the operators makes every binding take its torch fallback instead.
        BaseOp.inference_module = types.SimpleNamespace()
    try:
        yield
    finally:
        containers.DS_BloomContainer, containers.DS_GPT2Container = container_types
        BaseOp.inference_module = operators
        # The first container of the process would keep a whole layer's original weights alive, and these buffers
        # (used only for unfused projections, which no family here has) a layer's worth of memory.
        replace_module.container_g = None
        DeepSpeedSelfAttention._qkv_buffers = []
        DeepSpeedMLP._inter_w_buffers = []


def _bloom_container(upstream: Any) -> Any:
    class BloomContainer(upstream):  # type: ignore[misc]
        """Upstream's refuses transformers above 4.43.4 (pull request 6766); after that check it sets two fields."""

        def __init__(self, **kwargs: Any) -> None:
            super(upstream, self).__init__(**kwargs)
            self.bigscience_bloom, self.triangular_masking = True, False

    return BloomContainer


def _gpt2_container(upstream: Any) -> Any:
    class Gpt2Container(MetaTensorContainer, upstream):  # type: ignore[misc]
        """Upstream's copies out of the model's weights even when they are on the meta device."""

        def load_params(self, *_: Any) -> None:
            """Required by the base class; DeepSpeed's own checkpoint loader is not used."""
            raise UnsupportedModelError("checkpoints of injected models are read by bloomery, not by DeepSpeed")

    return Gpt2Container


def _adapt(
    module: nn.Module, layers: dict[str, Any], original: dict[str, type], family: InjectedFamily, max_tokens: int
) -> None:
    """Put an adapter around each injected layer."""
    config: Any = module.config
    activation = ACT2FN[getattr(config, family.activation) if family.activation else "gelu_new"]
    first = next(iter(layers.values()))
    on_cpu = next(first.parameters()).device.type == "cpu"
    rope_theta = (getattr(config, "rope_parameters", None) or {}).get("rope_theta")
    for layer in layers.values():
        if rope_theta:
            layer.config.rope_theta = rope_theta  # read at every call; DeepSpeed's policies leave it at 10000
    generation = CpuGeneration(first, config, max_tokens) if on_cpu else CudaGeneration(first, max_tokens)
    for index, (name, layer) in enumerate(layers.items()):
        if isinstance(generation, CpuGeneration):
            # BLOOM's projection stays interleaved by head, GPT-NeoX's is rearranged when it is filled.
            injection_cpu.install(layer, generation.shared, activation, interleaved=layer.config.bigscience_bloom)
        parent, _, attribute = name.rpartition(".")
        adapter = InjectedLayer(layer, original[name], index == 0, family.returns_tuple, generation)
        setattr(module.get_submodule(parent), attribute, adapter)


class Generation:
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
            raise UnsupportedModelError(
                f"with kernel injection a prompt cannot be continued by {tokens} tokens at once: DeepSpeed's kernels "
                f"take one token after the prompt; send the whole text as the prompt, or use kernel_inject=False"
            )
        if past and (self._owner is None or self._owner() is not cache.layers[0] or batch != self._batch):
            raise UnsupportedModelError(
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

    def prepare(self, states: Tensor, past: int, mask: Tensor | None, alibi: Tensor | None) -> None:
        """Make what all layers of this pass share."""
        raise NotImplementedError

    def call(self, layer: Any, states: Tensor) -> Any:
        """Run one injected layer."""
        raise NotImplementedError


class CpuGeneration(Generation):
    """Shares one mask and one rotary table among the layers of a pass."""

    def __init__(self, first: Any, config: Any, max_tokens: int) -> None:
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


class CudaGeneration(Generation):
    """Speaks to DeepSpeed's CUDA kernels. Written from their source; not run on a GPU."""

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
        additive = _additive(mask, states, past, CUDA_MASK_FLOOR)  # four dimensions: two are read as BERT's mask
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
        raise UnsupportedModelError(_NO_CACHE)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search."""
        raise UnsupportedModelError(_NO_CACHE)

    def crop(self, max_length: int) -> None:
        """Assisted decoding, or a prompt that is taken up again."""
        raise UnsupportedModelError(_NO_CACHE)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Several answers to one prompt."""
        raise UnsupportedModelError(_NO_CACHE)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Rows that leave the batch."""
        raise UnsupportedModelError(_NO_CACHE)


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
    return mask if mask.dtype == states.dtype and floor < CUDA_MASK_FLOOR else mask.to(states.dtype).clamp(min=floor)
