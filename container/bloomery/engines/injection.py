"""DeepSpeed's kernel injection (``replace_with_kernel_inject=True``) under transformers 5.

DeepSpeed replaces each decoder layer by its own, and an adapter (``injection_adapter``) goes around every one of them,
because upstream's layers fit no transformers above 4.43 (pull request 6766 gave up on BLOOM; from 4.44 on the other
families broke one after another).

On a CPU the layers compute with ``injection_cpu``. On CUDA DeepSpeed's kernels compute; that path follows DeepSpeed's
source (0.19.8) and has NOT been run on a GPU.
"""

from __future__ import annotations

import contextlib
import gc
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
from torch import nn
from transformers.activations import ACT2FN

from bloomery.engines import injection_cpu
from bloomery.engines.injection_adapter import CpuGeneration, InjectedLayer, KernelGeneration
from bloomery.engines.injection_weights import injected_layers
from bloomery.errors import UnsupportedModelError
from bloomery.sharding.injection import InjectedFamily, check_injectable

# Gets the model and a function to call with the name of each injected layer that is full.
Fill = Callable[[nn.Module, Callable[[str], None]], None]

_injected: weakref.ref[nn.Module] | None = None


def inject(
    model: nn.Module,
    *,
    dtype: torch.dtype,
    tensor_parallel: int,
    max_tokens: int,
    fill: Fill | None = None,
    deepspeed_kernels: bool | None = None,
) -> nn.Module:
    """Replace the decoder layers by DeepSpeed's, each rank holding its share, and return the model.

    A model built on the meta device comes back from DeepSpeed with this rank's tensors holding anything, buffers
    included: ``fill`` must write every one of them and prove it (``injection_weights.fill_injected`` does both).

    ``deepspeed_kernels``: compute with DeepSpeed's own operators; the default off a CPU. On a CPU they are its torch
    fallbacks, which are right for GPT-2 with exact GELU alone.
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
    if deepspeed_kernels is None:
        deepspeed_kernels = deepspeed.get_accelerator().device_name() != "cpu"
    adapt = _adapter(module, layers, original, family, max_tokens, deepspeed_kernels)
    if on_meta and fill is not None:
        fill(module, adapt)
    else:
        for name in layers:
            adapt(name)
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
        if isinstance(BaseOp.inference_module, types.SimpleNamespace):
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


def _adapter(
    module: nn.Module,
    layers: dict[str, Any],
    original: dict[str, type],
    family: InjectedFamily,
    max_tokens: int,
    deepspeed_kernels: bool,
) -> Callable[[str], None]:
    """A function that puts an adapter around the injected layer of a name."""
    config: Any = module.config
    activation = _activation(getattr(config, family.activation) if family.activation else "gelu_new")
    first_name, first = next(iter(layers.items()))
    rope_theta = (getattr(config, "rope_parameters", None) or {}).get("rope_theta")
    for layer in layers.values():
        if rope_theta:
            layer.config.rope_theta = rope_theta  # read at every call; DeepSpeed's policies leave it at 10000
    generation = KernelGeneration(first, max_tokens) if deepspeed_kernels else CpuGeneration(first, max_tokens)

    def adapt(name: str) -> None:
        layer = layers[name]
        if isinstance(generation, CpuGeneration):
            # BLOOM's projection stays interleaved by head, GPT-NeoX's is rearranged when it is filled.
            injection_cpu.install(layer, generation.shared, activation, interleaved=layer.config.bigscience_bloom)
        parent, _, attribute = name.rpartition(".")
        adapter = InjectedLayer(layer, original[name], name == first_name, family.returns_tuple, generation)
        setattr(module.get_submodule(parent), attribute, adapter)

    return adapt


def _activation(name: str) -> nn.Module:
    """transformers writes the tanh approximation of GELU in eight operators, torch in one."""
    found: nn.Module = nn.GELU("tanh") if name in ("gelu_new", "gelu_fast", "gelu_pytorch_tanh") else ACT2FN[name]
    return found
