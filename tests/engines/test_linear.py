"""Linear layers keep their answer whatever their storage; int8 says what it changed."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from transformers.pytorch_utils import Conv1D

from bloomery.engines import kernels
from bloomery.engines.kernels import Int8Kernel, OneDnnKernel, WideningKernel, fast_kernel
from bloomery.engines.linear import KernelLinear, logits_error, optimize_, quantize_, resident_bytes

SHAPES = [(1024, 512), (640, 416), (33, 7), (512, 2048)]
INPUTS = [(1,), (2,), (4,), (16,), (17,), (64,), (2, 3), (4, 1)]


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(7)
    torch.set_num_threads(1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("leading", INPUTS)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("pack", [True, False])
def test_onednn_equals_torch(shape: tuple[int, int], leading: tuple[int, ...], with_bias: bool, pack: bool) -> None:
    weight, bias = torch.randn(shape), torch.randn(shape[0]) if with_bias else None
    x = torch.randn(*leading, shape[1])
    y = OneDnnKernel(weight, pack)(x, bias)
    assert y.shape == (*leading, shape[0])
    torch.testing.assert_close(y, F.linear(x, weight, bias), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("leading", INPUTS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_int8_equals_the_product_with_its_restored_weight(
    shape: tuple[int, int], leading: tuple[int, ...], with_bias: bool
) -> None:
    weight, bias = torch.randn(shape), torch.randn(shape[0]) if with_bias else None
    x = torch.randn(*leading, shape[1])
    kernel = Int8Kernel(weight)
    y = kernel(x, bias)
    expected = F.linear(x, kernel.restored(0, shape[0]), bias)
    assert y.shape == expected.shape
    assert y.dtype == torch.float32
    assert logits_error(expected, y) < 5e-3  # bf16 activations and answers for few rows


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 40])
@pytest.mark.parametrize("shape", [(2500, 512), (33, 7)])
def test_widened_bf16_is_at_least_as_exact_as_torch(rows: int, shape: tuple[int, int]) -> None:
    weight, bias = torch.randn(shape).bfloat16(), torch.randn(shape[0]).bfloat16()
    x = torch.randn(rows, shape[1]).bfloat16()
    y = WideningKernel(weight)(x, bias)
    exact = F.linear(x.double(), weight.double(), bias.double())
    assert y.dtype == torch.bfloat16
    assert logits_error(exact, y) <= logits_error(exact, F.linear(x, weight, bias)) + 1e-6


def test_int8_rounds_every_weight_to_the_nearest_step_of_its_channel() -> None:
    weight = torch.randn(50, 300) * torch.logspace(-6, 3, 50)[:, None]
    kernel = Int8Kernel(weight)
    step = kernel.restored(0, 50).abs().amax(dim=1) / 127
    assert bool(((weight - kernel.restored(0, 50)).abs().amax(dim=1) <= 0.51 * weight.abs().amax(dim=1) / 126).all())
    assert bool((step > 0).all())


def test_int8_keeps_a_channel_of_zeros() -> None:
    weight = torch.zeros(3, 64)
    assert Int8Kernel(weight)(torch.randn(2, 64), None).abs().max() == 0


class _Model(nn.Module):
    """Embedding, plain and Conv1D layers, and a tied head."""

    def __init__(self, hidden: int, vocabulary: int = 3000) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, hidden)
        self.up = nn.Linear(hidden, 4 * hidden)
        self.down = Conv1D(hidden, 4 * hidden)
        self.lm_head = nn.Linear(hidden, vocabulary, bias=False)
        self.lm_head.weight = self.embed.weight
        nn.init.normal_(self.down.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        logits: torch.Tensor = self.lm_head(x + self.down(F.relu(self.up(x))))
        return logits


@pytest.mark.parametrize("hidden", [32, 512])
def test_an_optimized_model_answers_the_same(hidden: int) -> None:
    model = _Model(hidden).eval().requires_grad_(False)
    optimized = copy.deepcopy(model)
    tokens = torch.randint(0, 3000, (4, 5))
    report = optimize_(optimized)
    assert report.packed + report.transposed + report.shared >= 1
    torch.testing.assert_close(optimized(tokens), model(tokens), rtol=1e-4, atol=1e-3)


def test_optimizing_keeps_the_memory_of_a_tied_head_shared() -> None:
    model = _Model(512)
    before = resident_bytes(model)
    report = optimize_(model)
    assert report.shared == 1
    assert resident_bytes(model) == before


def test_a_bf16_model_answers_the_same_where_bf16_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.cpu, "has_fast_bf16", lambda: False)
    model = _Model(64).eval().requires_grad_(False).bfloat16()
    optimized = copy.deepcopy(model)
    tokens = torch.randint(0, 3000, (4, 5))
    assert optimize_(optimized).widened == 3
    assert logits_error(model.float()(tokens), optimized(tokens)) < 2e-2


def test_nothing_is_packed_without_avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.cpu, "has_avx2", lambda: False)
    assert fast_kernel(torch.randn(1024, 1024)) is None


def test_quantizing_halves_nothing_but_linears_and_reports_their_error() -> None:
    model = _Model(256).eval().requires_grad_(False)
    tokens = torch.randint(0, 3000, (4, 5))
    before = model(tokens)
    embedding = model.embed.weight.clone()
    report = quantize_(model)
    assert [layer.name for layer in report.layers] == ["up", "down"]
    assert report.kept == (("lm_head", "tied to an embedding"),)
    assert 0.001 < report.max_relative_error < 0.02
    assert report.bytes_before == 2 * 4 * 256 * 256 * 4
    assert report.bytes_after < report.bytes_before / 3.9
    assert torch.equal(model.embed.weight, embedding)
    assert 0 < logits_error(before, model(tokens)) < 0.03
    assert "2 linear layers" in str(report)


def test_an_output_head_is_quantized_only_on_request() -> None:
    untied = _Model(64)
    untied.lm_head.weight = nn.Parameter(torch.randn(3000, 64))
    assert ("lm_head", "output head") in quantize_(copy.deepcopy(untied)).kept
    assert "lm_head" in [layer.name for layer in quantize_(untied, include_head=True).layers]


def test_an_optimized_layer_forgets_the_original() -> None:
    model = nn.Sequential(nn.Linear(1024, 1024))
    original = model[0]
    optimize_(model)
    assert isinstance(model[0], KernelLinear)
    assert original.weight is None
