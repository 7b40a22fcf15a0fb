"""A transformers model split over ranks by DeepSpeed."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from bloomery.checkpoints import Checkpoint
from bloomery.checkpoints.splitting.presharded import stored_dtype
from bloomery.engines import filling, loading, memory, models, pipelines, precision, rendezvous, untabled
from bloomery.engines.allreduce import choose as choose_allreduce
from bloomery.engines.generation import TransformersEngine
from bloomery.engines.reader import Reader
from bloomery.engines.streamed import open_reader
from bloomery.errors import ConfigurationError, UnsupportedModelError
from bloomery.processes import rank
from bloomery.sharding import FAMILIES, WHOLE, Family, Heads, Split, check_heads, family_of, from_row_parallel, split

log = logging.getLogger(__name__)

# DeepSpeed cuts weights of these names each in its own way, which shapes alone do not show.
_JOINT = ("qkv_proj", "query_key_value", "Wqkv", "W_pack", "c_attn", "gate_up_proj")

KernelInject = bool | Literal["auto"]
InjectionPolicy = Mapping[Any, str | tuple[str, ...]]


def load(
    place: str | Path | Checkpoint,
    tensor_parallel: int | None = None,
    dtype: str = "fp32",
    kernel_inject: KernelInject = False,
    injection_policy: InjectionPolicy | None = None,
    max_tokens: int = 1024,
    *,
    allreduce: str = "auto",
    trust_remote_code: bool = False,
    tokenizer: str | Path | None = None,
    chat_template: str | None = None,
    task: str | None = None,
) -> TransformersEngine:
    """Load this rank's share of a checkpoint: of a directory, or of what ``checkpoints.locate`` gives.

    tensor_parallel: over how many ranks; by default WORLD_SIZE. Every rank must call with the same arguments.
    dtype: fp32, fp16, bf16, int8 (weight-only) or auto (what the checkpoint says).
    kernel_inject: True: DeepSpeed's own layers; False: automatic tensor parallelism; "auto": the latter where it works.
    injection_policy: for models DeepSpeed does not know, {block class or its name: names of its row-parallel linears}.
    max_tokens: prompt and new tokens together.
    allreduce: how ranks on CPUs add up their shares: gloo, shm (DeepSpeed's shared memory) or auto (what is measured
        to be faster).
    chat_template: Jinja text, or the path of a file with it, in place of the checkpoint's own.
    task: one of models.TASKS; by default what the checkpoint's architecture is for.
    """
    checkpoint = Checkpoint.of(place)
    path = checkpoint.path
    ranks = _ranks(tensor_parallel)
    config = loading.read_config(path, trust_remote_code=trust_remote_code)
    task = models.task_of(config, task)
    chosen = precision.choose(dtype, config, _device(), stored_dtype(path))
    inject = _choose_injection(config, kernel_inject, injection_policy, ranks)
    if inject:
        _check_injected_precision(chosen, _device())
    if ranks > 1 or inject:
        pipelines.check_splittable(config, task, inject, injection_policy is not None)
    limit = models.token_limit(config, max_tokens)
    if ranks > 1:
        check_heads(config.to_dict(), ranks)
    rank.current.report("joining ranks")
    start_ranks(ranks, allreduce)
    rank.current.report("building model")
    auto_class = models.auto_class(config, task)
    meta = loading.build_on_meta(config, auto_class, chosen.dtype, trust_remote_code=trust_remote_code)
    with memory.returned_when_freed(), filling.reading(open_reader(checkpoint, meta.rename, ranks)) as reader:
        preparation = precision.Preparation(chosen, _device(), reader.scales)
        if inject:
            model = _load_injected(meta, reader, chosen.dtype, ranks, limit, preparation.apply)
        else:
            sharded = _shard(meta, config, chosen.dtype, ranks, injection_policy)
            model = sharded.module
            loading.fill(model, meta, reader, sharded.part, preparation.apply)
    preparation.finish()
    if ranks > 1 and config.model_type not in FAMILIES:
        untabled.try_out(model)
    models.give_generation_config(model, path)
    before = getattr(model, "reset_cache", None) if inject else None
    engine = TransformersEngine(
        name="deepspeed",
        model=model,
        model_type=config.model_type,
        tokenizer=models.load_tokenizer(
            Path(tokenizer) if tokenizer else path, trust_remote_code=trust_remote_code, chat_template=chat_template
        ),
        max_tokens=limit,
        ranks=ranks,
        beams=not inject,
        before=before,
    )
    return pipelines.for_task(engine, task)


def _ranks(tensor_parallel: int | None) -> int:
    world = int(os.environ.get("WORLD_SIZE") or 1)
    ranks = world if tensor_parallel is None else tensor_parallel
    if ranks < 1 or ranks != world:
        raise ConfigurationError(
            f"tensor_parallel={ranks}, but WORLD_SIZE says {world} rank(s) run: a DeepSpeed group has as many "
            "processes as its tensor_parallel degree"
        )
    return ranks


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _choose_injection(config: Any, kernel_inject: KernelInject, policy: InjectionPolicy | None, ranks: int) -> bool:
    """Whether to inject kernels; refuses what neither way can do."""
    if kernel_inject not in (True, False, "auto"):
        raise ConfigurationError(f"kernel_inject={kernel_inject!r} is not one of True, False, 'auto'")
    if kernel_inject is True and policy is not None:
        raise ConfigurationError("kernel_inject=True and injection_policy exclude each other: leave one of them out")
    fused = config.model_type == "gpt2" and ranks > 1
    if fused and not kernel_inject:
        raise UnsupportedModelError(
            f"gpt2 over {ranks} ranks: DeepSpeed's automatic tensor parallelism cannot split its fused Conv1D "
            "attention; use kernel_inject=True (or 'auto'), or tensor_parallel=1"
        )
    inject = fused if kernel_inject == "auto" else bool(kernel_inject)
    if inject:
        from bloomery.sharding.injection import check_injectable

        check_injectable(config, ranks)
    return inject


def _check_injected_precision(chosen: precision.Precision, device: str) -> None:
    """Refuse int8 where DeepSpeed's own kernels compute: their weights would stay fp16, twice as large as promised."""
    if chosen.int8 and device != "cpu":
        raise UnsupportedModelError(
            "dtype=int8 with kernel_inject=True: on a GPU the layers of DeepSpeed's own kernels stay fp16; use "
            "kernel_inject=False for int8 weights, or dtype=fp16"
        )


def start_ranks(ranks: int, preference: str = "auto") -> None:
    """Join the ranks of this group, by gloo on a CPU and by NCCL on CUDA.

    DeepSpeed would compile its shared-memory all-reduce here, for about 100 seconds; it is kept out, and
    ``engines.allreduce`` takes it once it is there and measures faster.
    """
    os.environ.setdefault("DS_ACCELERATOR", _device())  # DeepSpeed's own search prints a warning on a CPU
    logging.getLogger("compilers").setLevel(logging.WARNING)  # it tries out a compiler when imported
    import deepspeed
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    if ranks == 1 or torch.distributed.is_initialized():
        return
    compatible = deepspeed.ops.__compatible_ops__
    known = compatible.get(ShareMemCommBuilder.NAME)
    compatible[ShareMemCommBuilder.NAME] = False
    try:
        if _device() == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "nccl" if _device() == "cuda" else "gloo"
        deepspeed.init_distributed(backend, init_method=rendezvous.method(), verbose=False)
    finally:
        compatible[ShareMemCommBuilder.NAME] = known
    choose_allreduce(preference)


@dataclass(frozen=True)
class _Sharded:
    module: Any  # this rank's layers, still empty
    part: Callable[[str], Split]  # which piece of a whole tensor belongs into it


def _shard(
    meta: loading.MetaModel, config: Any, dtype: torch.dtype, ranks: int, policy: InjectionPolicy | None
) -> _Sharded:
    import deepspeed

    classes = _policy_classes(meta.model, policy)
    family = _family(meta.model, config, classes, ranks)
    _give_data_to_sliced_tables(meta.model, family)
    with _quiet():
        module = deepspeed.init_inference(
            meta.model,
            dtype=dtype,
            replace_with_kernel_inject=False,
            injection_policy=classes,
            tensor_parallel={"tp_size": ranks},
        ).module
    if config.model_type == "bloom" and ranks > 1:
        module.transformer.register_forward_pre_hook(_give_mask, with_kwargs=True)
    heads = Heads.of(config.to_dict()) if ranks > 1 else Heads(1, 1)

    def part(name: str) -> Split:
        if family is None or name not in meta.shapes:
            return WHOLE
        return split(family, heads, name, meta.shapes[name], rank.current.index, ranks)

    return _Sharded(module, part)


def _give_mask(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """generate() drops a mask that hides nothing, and BLOOM then makes its linear biases for all heads of the model,
    past the function that DeepSpeed replaced in order to cut them to this rank's (transformers 5.23)."""
    ids = args[0] if args else kwargs.get("input_ids")
    if kwargs.get("attention_mask") is None and ids is not None:
        cache = kwargs.get("past_key_values")
        tokens = ids.shape[1] + (cache.get_seq_length() if cache is not None else 0)
        kwargs["attention_mask"] = torch.ones(len(ids), tokens, dtype=torch.int64, device=ids.device)
    return args, kwargs


def _policy_classes(model: nn.Module, policy: InjectionPolicy | None) -> dict[type[nn.Module], tuple[str, ...]] | None:
    """DeepSpeed wants classes; a properties file can only name them."""
    if policy is None:
        return None
    by_name = {type(module).__name__: type(module) for module in model.modules()}
    found: dict[type[nn.Module], tuple[str, ...]] = {}
    for block, names in policy.items():
        block_class = by_name.get(block) if isinstance(block, str) else block
        if block_class is None:
            raise ConfigurationError(
                f"injection_policy names a block {block!r} that this model does not have; it has "
                f"{', '.join(sorted(by_name))}"
            )
        found[block_class] = (names,) if isinstance(names, str) else tuple(names)
    return found


def _family(
    model: nn.Module, config: Any, classes: dict[type[nn.Module], tuple[str, ...]] | None, ranks: int
) -> Family | None:
    """The table for this model; for one that has none, what DeepSpeed itself will do to its blocks."""
    if ranks == 1:
        return None
    if classes is None and config.model_type in FAMILIES:
        return family_of(config.to_dict())
    if classes is None:
        from deepspeed.module_inject.auto_tp import AutoTP

        try:
            classes = {block: tuple(names) for block, names in AutoTP.tp_parser(model)}
        except AssertionError as error:
            raise UnsupportedModelError(
                f"DeepSpeed cannot split {config.model_type} by itself ({error}); name its row-parallel layers in "
                "injection_policy, or use tensor_parallel=1"
            ) from error
    blocks = {name: module for name, module in model.named_modules() if type(module) in classes}
    linears = {
        child for module in blocks.values() for child, layer in module.named_modules() if isinstance(layer, nn.Linear)
    }
    joint = sorted(name for name in linears if any(part in name for part in _JOINT))
    if joint and config.model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"{config.model_type} keeps several projections in one weight ({', '.join(joint)}), and there is no table "
            "of how DeepSpeed cuts that; use tensor_parallel=1 or the Python engine"
        )
    if config.model_type not in FAMILIES:
        untabled.check_blocks(config, blocks)
    head = next((name for name in ("lm_head", "embed_out") if isinstance(getattr(model, name, None), nn.Linear)), None)
    row = tuple(name for names in classes.values() for name in names)
    layers = "|".join(name.replace(".", r"\.") for name in blocks)
    return from_row_parallel(config.model_type, f"(?:{layers})", tuple(sorted(linears)), row, head)


def _give_data_to_sliced_tables(model: nn.Module, family: Family | None) -> None:
    """DeepSpeed slices an embedding inside a block (T5's relative positions) by copying, which meta tensors refuse."""
    for name, module in model.named_modules():
        if family is not None and isinstance(module, nn.Embedding) and family.kind(name) == "embedding":
            module.weight = nn.Parameter(torch.empty_like(module.weight, device="cpu"), requires_grad=False)


def _load_injected(
    meta: loading.MetaModel,
    reader: Reader,
    dtype: torch.dtype,
    ranks: int,
    max_tokens: int,
    prepare: Callable[[nn.Module, str], None],
) -> Any:
    from bloomery.engines.injection import inject
    from bloomery.engines.injection_weights import fill_injected

    def fill(module: nn.Module, full: Callable[[str], None]) -> None:
        fill_injected(module, full, meta, reader, ranks, rank.current.index, prepare)

    return inject(meta.model, dtype=dtype, tensor_parallel=ranks, max_tokens=max_tokens, fill=fill)


@contextlib.contextmanager
def _quiet() -> Any:
    """DeepSpeed prints what it parsed on stdout, which a worker's server reads as log lines of every rank."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
