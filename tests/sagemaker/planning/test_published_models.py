"""The two models of the published walk-through, on its machines, against arithmetic that is written out here."""

from __future__ import annotations

import pytest
from tests.support.weightless import bloom_176b, opt_30b

from bloomery.sagemaker.planning import Option, Plan, plan

GIB = 2**30
P4D, G5_12, G5_24 = "ml.p4d.24xlarge", "ml.g5.12xlarge", "ml.g5.24xlarge"

# BLOOM: hidden size, layers, vocabulary, heads.
H, L, V, A = 14336, 70, 250880, 112
# OPT-30B, likewise, with the width of its MLP and its rows of positions (2048, and 2 that the padding takes).
OH, OL, OV, OA, OF, OP = 7168, 48, 50272, 56, 28672, 2050


@pytest.fixture(scope="module")
def bloom(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(bloom_176b(tmp_path_factory.mktemp("models") / "bloom"))


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(opt_30b(tmp_path_factory.mktemp("models") / "opt-30b"))


def one(made: Plan, degree: int) -> Option:
    (found,) = [option for option in made.options if option.degree == degree]
    return found


def test_bloom_has_its_published_number_of_parameters(bloom: str) -> None:
    # A layer: query, key, value 3 H x H + 3 H; dense H x H + H; MLP 4 H x H + 4 H and H x 4 H + H; two norms 2 x 2 H.
    layer = (3 * H * H + 3 * H) + (H * H + H) + (4 * H * H + 4 * H) + (4 * H * H + H) + 4 * H
    assert layer == 12 * H * H + 13 * H
    # The embedding, which is the head too and counts once, its norm, and the last norm.
    parameters = L * layer + V * H + 2 * H + 2 * H
    assert parameters == 176_247_271_424
    made = plan(bloom, instance_types=[P4D])
    assert made.facts.parameters == parameters
    assert made.facts.tied
    assert dict(made.facts.stored_dtypes) == {"BF16": 2 * parameters}


def test_bloom_in_int8_on_eight_gpus_of_40_gb(bloom: str) -> None:
    made = plan(bloom, instance_types=[P4D], dtype="int8", tensor_parallel=8, batch=4, length=512)

    # On every rank in fp16: the embedding, its norm, two norms a layer, the last norm, and the biases that are added
    # after the ranks' sums (dense, 4h_to_h).
    whole = 2 * (V * H + 2 * H + L * 4 * H + 2 * H + L * 2 * H)
    # An eighth of every matrix in int8, and of the biases of query_key_value and h_to_4h in fp16.
    part = L * 12 * H * H // 8 + 2 * L * (3 * H + 4 * H) // 8
    # Automatic tensor parallelism gives each rank its columns of the tied head: an eighth of the embedding again.
    head = 2 * V * H // 8
    # A scale (bf16) per output that the rank has: an eighth of 3 H and 4 H, all of dense's and 4h_to_h's H.
    scales = 2 * L * ((3 * H + 4 * H) // 8 + 2 * H)
    for rank in made.ranks:
        assert (rank.whole, rank.part, rank.head_copy, rank.scales) == (whole, part, head, scales)
        assert rank.total == 29_691_762_688  # 27.65 GiB

    # 14 of 112 heads of 128 on each rank: key and value x 70 layers x 14 x 128 x 4 x 512 tokens x 2 bytes.
    cache = 2 * L * 14 * 128 * 4 * 512 * 2
    found = one(made, 8)
    assert found.memory.cache == cache
    assert found.memory.weights == 29_691_762_688
    # 40 GiB less 8 % is 36.8 GiB; weights 27.65 + cache 0.96 leave 8.2 for activations and CUDA.
    assert found.usable == int(40 * GIB * 0.92)
    assert found.fits
    assert made.recommended == found


def test_bloom_in_fp16_needs_more_than_eight_gpus_of_40_gb(bloom: str) -> None:
    made = plan(bloom, instance_types=[P4D], dtype="fp16")
    # Kernel injection: an eighth of 12 H x H a layer, 40.2 GiB, is too much by itself; with the embedding 46.9 GiB.
    whole = 2 * (V * H + 2 * H + L * 4 * H + 2 * H + L * 2 * H)
    part = 2 * (L * 12 * H * H + L * 7 * H) // 8
    found = one(made, 8)
    assert found.memory.weights == whole + part
    assert found.memory.weights / GIB == pytest.approx(46.91, abs=0.01)
    assert not any(option.fits for option in made.options)
    assert made.recommended is None
    assert any("--dtype int8" in sentence for sentence in made.advice)


def test_bloom_in_fp16_fits_on_eight_gpus_of_80_gb(bloom: str) -> None:
    made = plan(bloom, instance_types=["ml.p4de.24xlarge", "ml.p5.48xlarge"], dtype="fp16", batch=4, length=512)
    assert {(option.instance_type, option.degree) for option in made.options if option.fits} == {
        ("ml.p4de.24xlarge", 8),
        ("ml.p5.48xlarge", 8),
        ("ml.p4de.24xlarge", 7),  # 112 heads are 16 for each of seven
        ("ml.p5.48xlarge", 7),
    }


@pytest.mark.parametrize("machine", [G5_12, G5_24])
@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_bloom_does_not_fit_on_four_gpus_of_24_gb(bloom: str, machine: str, dtype: str) -> None:
    assert plan(bloom, instance_types=[machine], dtype=dtype).recommended is None


def test_opt_30b_has_its_published_number_of_parameters(opt: str) -> None:
    # A layer: four projections H x H + H, MLP F x H + F and H x F + H, two norms 2 x 2 H.
    layer = 4 * (OH * OH + OH) + (OF * OH + OF) + (OH * OF + OH) + 4 * OH
    parameters = OL * layer + OV * OH + OP * OH + 2 * OH
    assert parameters == 29_974_540_288
    assert plan(opt, instance_types=[G5_12]).facts.parameters == parameters


@pytest.mark.parametrize("machine", [G5_12, G5_24])
def test_opt_30b_in_fp16_on_four_gpus_of_24_gb(opt: str, machine: str) -> None:
    made = plan(opt, instance_types=[machine], dtype="fp16", batch=4, length=512)

    # On every rank: embedding (the head too: kernel injection leaves it tied), positions, norms, and the biases of
    # out_proj and fc2. A quarter: the matrices, and the biases of query, key, value and fc1.
    whole = 2 * (OV * OH + OP * OH + OL * 4 * OH + 2 * OH + OL * 2 * OH)
    part = 2 * OL * (4 * OH * OH + 2 * OF * OH + 3 * OH + OF) // 4
    assert [(rank.whole, rank.part, rank.head_copy, rank.scales) for rank in made.ranks] == [(whole, part, 0, 0)] * 4
    assert (whole + part) / GIB == pytest.approx(14.5, abs=0.1)

    found = one(made, 4)
    assert found.memory.weights == whole + part
    # 14 of 56 heads of 128: key and value x 48 layers x 14 x 128 x 4 x 512 tokens x 2 bytes.
    assert found.memory.cache == 2 * OL * 14 * 128 * 4 * 512 * 2
    assert found.usable == int(22888 * 2**20 * 0.92)  # 20.6 GiB
    assert found.fits
    assert made.recommended == found


def test_opt_30b_in_fp16_does_not_fit_on_two_gpus_of_24_gb(opt: str) -> None:
    made = plan(opt, instance_types=[G5_12], dtype="fp16")
    assert [option.degree for option in made.options if not option.fits] == [2, 1]
    assert one(made, 2).memory.weights / GIB == pytest.approx(28.3, abs=0.1)


def test_opt_30b_in_fp16_on_eight_gpus_of_40_gb_is_there_twice(opt: str) -> None:
    made = plan(opt, instance_types=[P4D], dtype="fp16", batch=4, length=512)
    assert made.recommended is not None
    # Half of it is 28.3 GiB of 36.8: two GPUs do, and the machine has four such pairs.
    assert (made.recommended.degree, made.recommended.copies) == (2, 4)
    assert one(made, 1).fits is False


def test_opt_30b_split_by_automatic_tensor_parallelism_has_a_part_of_the_head_more(opt: str) -> None:
    injected = plan(opt, instance_types=[G5_12], dtype="fp16", tensor_parallel=4)
    automatic = plan(opt, instance_types=[G5_12], dtype="fp16", tensor_parallel=4, kernel_inject=False)
    assert automatic.ranks[0].total - injected.ranks[0].total == 2 * OV * OH // 4
