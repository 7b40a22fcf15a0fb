"""Fill the injected layers of one rank from a checkpoint, piece by piece: no tensor is ever held whole beside its share.

DeepSpeed's names on the left, what they are made of on the right (r of n ranks):

    attention.attn_qkvw [hidden, 3 x hidden / n]   query, key and value of the heads of rank r
    attention.attn_ow   [hidden / n, hidden]       the inputs of the output projection that these heads feed
    mlp.inter_w         [hidden, 4 x hidden / n]   the r-th part of the outputs
    mlp.output_w        [4 x hidden / n, hidden]   the r-th part of the inputs
    attn_qkvb, inter_b                             like their weights
    norms, attn_ob, output_b                       whole on every rank

All matrices are [input, output]. BLOOM's projection keeps its rows as the checkpoint has them (query, key and value
head by head); GPT-NeoX's are rearranged to all queries, all keys, all values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bloomery.engines.injection_families import FAMILIES, InjectedFamily
from bloomery.engines.reader import CheckpointReader, Range
from bloomery.errors import CheckpointError

Copied = Callable[[int], None]


def fill_from_checkpoint(
    model: nn.Module, reader: CheckpointReader, *, tensor_parallel: int, rank: int, copied: Copied | None = None
) -> None:
    """Write this rank's share of ``reader``'s tensors into a model whose layers DeepSpeed has just replaced.

    ``copied`` hears the bytes of each piece as it lands. Buffers are computed again, as transformers does.
    """
    config: Any = model.config
    family = FAMILIES[config.model_type]
    layers: Any = model.get_submodule(family.layers)
    for index, layer in enumerate(layers):
        _LayerFiller(family, reader, f"{family.layers}.{index}.", tensor_parallel, rank, copied).fill(layer)
    for name, parameter in model.named_parameters():
        if not name.startswith(family.layers + "."):
            reader.fill(parameter.data, _tied_name(model, reader, name), copied=copied)
    for module in model.modules():
        if module._buffers and not module._parameters:
            model._init_weights(module)  # type: ignore[operator]


class _LayerFiller:
    def __init__(
        self,
        family: InjectedFamily,
        reader: CheckpointReader,
        prefix: str,
        tensor_parallel: int,
        rank: int,
        copied: Copied | None,
    ) -> None:
        self.family, self.reader, self.prefix = family, reader, prefix
        self.ranks, self.rank, self.copied = tensor_parallel, rank, copied

    def fill(self, layer: Any) -> None:
        family, attention, mlp = self.family, layer.attention, layer.mlp
        self._query_key_value(layer)
        self._by_input(attention.attn_ow, family.attention_out)
        self._whole(attention.attn_ob, f"{family.attention_out}.bias")
        self._by_output(mlp.inter_w, mlp.inter_b, family.mlp_in)
        self._by_input(mlp.output_w, family.mlp_out)
        self._whole(mlp.output_b, f"{family.mlp_out}.bias")
        self._norm(layer.norm_w, layer.norm_b, family.input_norm)
        if family.mlp_norm:
            self._norm(mlp.attn_nw, mlp.attn_nb, family.mlp_norm)

    def _query_key_value(self, layer: Any) -> None:
        attention, sources = layer.attention, self.family.query_key_value
        weight, bias = attention.attn_qkvw.data, attention.attn_qkvb
        share = weight.shape[1] // 3
        if len(sources) == 3:
            for part, source in enumerate(sources):
                columns = slice(part * share, (part + 1) * share)
                self._by_output(weight[:, columns], None if bias is None else bias.data[columns], source)
            return
        ranges: list[Range]
        if not self.family.interleaved_heads:
            ranges = [(start, start + share) for start in self._starts(share, 3)]
        elif layer.config.bigscience_bloom:
            ranges = [(self.rank * 3 * share, (self.rank + 1) * 3 * share)]
        else:
            heads = attention.num_attention_heads_per_partition
            width = share // heads
            ranges = [
                (start, start + width)
                for part in range(3)
                for head in range(self.rank * heads, (self.rank + 1) * heads)
                for start in [(3 * head + part) * width]
            ]
        self._by_output(weight, bias, sources[0], ranges)

    def _starts(self, share: int, parts: int) -> list[int]:
        return [(part * self.ranks + self.rank) * share for part in range(parts)]

    def _by_output(self, weight: Tensor, bias: Tensor | None, source: str, ranges: list[Range] | None = None) -> None:
        share = weight.shape[1]
        ranges = ranges or [(self.rank * share, (self.rank + 1) * share)]
        self._matrix(weight, f"{source}.weight", ranges, of_outputs=True)
        if bias is not None:
            self.reader.fill(bias.data, f"{self.prefix}{source}.bias", ranges, 0, self.copied)

    def _by_input(self, weight: Tensor, source: str) -> None:
        share = weight.shape[0]
        ranges = [(self.rank * share, (self.rank + 1) * share)]
        self._matrix(weight, f"{source}.weight", ranges, of_outputs=False)

    def _matrix(self, weight: Tensor, name: str, ranges: list[Range], of_outputs: bool) -> None:
        target = weight.data if self.family.input_by_output else weight.data.t()
        axis = 1 if of_outputs == self.family.input_by_output else 0
        self.reader.fill(target, self.prefix + name, ranges, axis, self.copied)

    def _norm(self, weight: Tensor, bias: Tensor, source: str) -> None:
        self._whole(weight, f"{source}.weight")
        self._whole(bias, f"{source}.bias")

    def _whole(self, target: Tensor | None, name: str) -> None:
        if target is not None:
            self.reader.fill(target.data, self.prefix + name, copied=self.copied)


def make_room(model: Any, layers: Iterable[Any]) -> None:
    """Prepare the tensors that DeepSpeed made, still empty, for being filled.

    Moving off the meta device unties the language model's head from the embeddings, so they are tied again. On a CPU
    the matrices keep their [input, output] shape but get the memory order of torch's Linear, which computes with them
    later: the checkpoint has the same order, and nothing is transposed twice.
    """
    model.tie_weights()
    for layer in layers:
        for owner, names in ((layer.attention, ("attn_qkvw", "attn_ow")), (layer.mlp, ("inter_w", "output_w"))):
            for name in names:
                parameter = getattr(owner, name)
                if parameter.device.type == "cpu":
                    inputs, outputs = parameter.shape
                    parameter.data = parameter.data.view(outputs, inputs).t()


def poison(model: nn.Module) -> None:
    """Make every element of every parameter and buffer NaN (the lowest number where there is no NaN)."""
    for tensor in _tensors(model).values():
        tensor.fill_(torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).min)


def check_filled(model: nn.Module) -> None:
    """Raise when poison is left anywhere: the checkpoint lacks a weight, or holds NaN itself."""
    left = [name for name, tensor in _tensors(model).items() if _poisoned(tensor)]
    if left:
        raise CheckpointError(
            f"{len(left)} tensors were not filled completely (or the checkpoint holds NaN), the first of them "
            f"{', '.join(left[:5])}: this checkpoint does not hold the whole model"
        )


def _poisoned(tensor: Tensor) -> bool:
    # The sum of squares is NaN when one element is, and needs no second tensor of that size.
    flat = tensor.detach()
    if not flat.is_floating_point():
        return bool((flat == torch.iinfo(flat.dtype).min).any())
    return bool(flat.sum(dtype=torch.float32).isnan())


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.data for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def _tied_name(model: Any, reader: CheckpointReader, name: str) -> str:
    """The tensor's name in the checkpoint: a tied head may be stored under either of its names."""
    if name in reader:
        return name
    wanted = model.get_parameter(name)
    for other, parameter in model.named_parameters(remove_duplicate=False):
        if parameter is wanted and other in reader:
            return str(other)
    return name
