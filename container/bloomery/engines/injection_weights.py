"""Fill the layers that DeepSpeed injected with one rank's share of a checkpoint, each piece straight into its place.

DeepSpeed's names, and what they are made of on rank r of n:

    attention.attn_qkvw [hidden, 3 x hidden / n]   query, key and value of the r-th part of the heads
    attention.attn_ow   [hidden / n, hidden]       the inputs of the output projection that these heads feed
    mlp.inter_w         [hidden, 4 x hidden / n]   the r-th part of the outputs
    mlp.output_w        [4 x hidden / n, hidden]   the r-th part of the inputs
    attn_qkvb, inter_b                             like their weights
    norms, attn_ob, output_b                       whole on every rank

All matrices are [input, output]. BLOOM's projection keeps its rows as the checkpoint has them (query, key and value
head by head); GPT-NeoX's are rearranged to all queries, all keys, all values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from deepspeed.ops.transformer.inference import DeepSpeedTransformerInference
from torch import Tensor, nn

from bloomery.engines.filling import Filler, filled_ahead
from bloomery.engines.loading import MetaModel, fill_plain, prepare_alone, tie
from bloomery.engines.reader import Range, Reader
from bloomery.sharding import WHOLE
from bloomery.sharding.injection import FAMILIES, InjectedFamily


def fill_injected(
    module: nn.Module,
    full: Callable[[str], None],
    meta: MetaModel,
    reader: Reader,
    ranks: int,
    rank: int,
    prepare: Callable[[nn.Module, str], None] = lambda module, prefix: None,
) -> None:
    """Fill every tensor of a model whose layers DeepSpeed has just replaced, and raise when one is left.

    ``full`` hears each layer's name when it is full; then ``prepare`` gets the layer, and at the end the model, to
    repack their matrices: two copies of one layer exist then, never of all.
    """
    tie(module, meta.ties)
    layers = dict(injected_layers(module))
    filler = Filler(module, reader)
    config: Any = module.config

    def ask(name: str) -> None:
        if not name:
            fill_plain(filler, meta, lambda _: WHOLE)
            return
        _store_as_linear(layers[name])
        _LayerFiller(FAMILIES[config.model_type], filler, name, ranks, rank).fill(layers[name])

    for name in filled_ahead(filler, [*layers, ""], ask):
        if name:
            full(name)
            prepare_alone(module, name, prepare)
    filler.check()
    prepare(module, "")


def injected_layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """DeepSpeed's layers inside ``module``, with their names."""
    for name, layer in module.named_modules():
        if isinstance(layer, DeepSpeedTransformerInference):
            yield name, layer


def _store_as_linear(layer: Any) -> None:
    """On a CPU the matrices, still empty, keep their shape but get the memory order of torch's Linear, which computes
    with them later: checkpoints have the same order, so nothing is transposed."""
    for owner, names in ((layer.attention, ("attn_qkvw", "attn_ow")), (layer.mlp, ("inter_w", "output_w"))):
        for name in names:
            parameter = getattr(owner, name)
            if parameter.device.type == "cpu":
                inputs, outputs = parameter.shape
                parameter.data = parameter.data.view(outputs, inputs).t()


class _LayerFiller:
    """Fills one layer. ``name`` is its place in the model, which is also the prefix of its weights' names in files."""

    def __init__(self, family: InjectedFamily, filler: Filler, name: str, ranks: int, rank: int) -> None:
        self.family, self.filler, self.name = family, filler, name
        self.ranks, self.rank = ranks, rank

    def fill(self, layer: Any) -> None:
        family = self.family
        self._query_key_value(layer)
        self._matrix("attention.attn_ow", layer.attention.attn_ow, family.attention_out, by_output=False)
        self._vector("attention.attn_ob", layer.attention.attn_ob, f"{family.attention_out}.bias")
        self._matrix("mlp.inter_w", layer.mlp.inter_w, family.mlp_in)
        self._vector("mlp.inter_b", layer.mlp.inter_b, f"{family.mlp_in}.bias", [self._share(layer.mlp.inter_b)])
        self._matrix("mlp.output_w", layer.mlp.output_w, family.mlp_out, by_output=False)
        self._vector("mlp.output_b", layer.mlp.output_b, f"{family.mlp_out}.bias")
        self._vector("norm_w", layer.norm_w, f"{family.input_norm}.weight")
        self._vector("norm_b", layer.norm_b, f"{family.input_norm}.bias")
        if family.mlp_norm:
            self._vector("mlp.attn_nw", layer.mlp.attn_nw, f"{family.mlp_norm}.weight")
            self._vector("mlp.attn_nb", layer.mlp.attn_nb, f"{family.mlp_norm}.bias")

    def _query_key_value(self, layer: Any) -> None:
        weight, bias, sources = layer.attention.attn_qkvw, layer.attention.attn_qkvb, self.family.query_key_value
        share = weight.shape[1] // 3
        if len(sources) == 3:
            targets = [slice(part * share, (part + 1) * share) for part in range(3)]
            ranges: list[list[Range]] = [[(self.rank * share, (self.rank + 1) * share)]] * 3
        else:
            targets = [slice(None)]
            ranges = [self._fused_ranges(layer, share)]
        for source, target, part in zip(sources, targets, ranges, strict=True):
            self._matrix("attention.attn_qkvw", weight[:, target], source, part)
            if bias is not None:
                self._vector("attention.attn_qkvb", bias[target], f"{source}.bias", part)

    def _fused_ranges(self, layer: Any, share: int) -> list[Range]:
        """Where this rank's queries, keys and values (``share`` of each) lie in a fused projection."""
        if not self.family.interleaved_heads:
            starts = [(part * self.ranks + self.rank) * share for part in range(3)]
            return [(start, start + share) for start in starts]
        if layer.config.bigscience_bloom:
            return [(3 * self.rank * share, 3 * (self.rank + 1) * share)]
        heads = layer.attention.num_attention_heads_per_partition
        width = share // heads
        mine = range(self.rank * heads, (self.rank + 1) * heads)
        starts = [(3 * head + part) * width for part in range(3) for head in mine]
        return [(start, start + width) for start in starts]

    def _share(self, tensor: Tensor) -> Range:
        return self.rank * tensor.shape[-1], (self.rank + 1) * tensor.shape[-1]

    def _matrix(
        self, name: str, weight: Tensor, source: str, ranges: Sequence[Range] | None = None, by_output: bool = True
    ) -> None:
        """Cut by outputs (columns of DeepSpeed's matrix) or by inputs."""
        ranges = ranges or [self._share(weight if by_output else weight.t())]
        view = weight.data if self.family.input_by_output else weight.data.t()
        axis = 1 if by_output == self.family.input_by_output else 0
        self.filler.copy_part(f"{self.name}.{name}", view, f"{self.name}.{source}.weight", ranges, axis)

    def _vector(self, name: str, vector: Tensor | None, source: str, ranges: Sequence[Range] | None = None) -> None:
        if vector is not None:
            self.filler.copy_part(f"{self.name}.{name}", vector.data, f"{self.name}.{source}", ranges, 0)
