"""Models split by DeepSpeed answer as the same models whole: every family, each way, over one rank and two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support import parity
from tests.support.parity import Case, Measured

# About two minutes on two busy cores, nearly all of them in the fixture.
pytestmark = pytest.mark.timeout(900)
CASES = parity.cases()
DECODERS = [case for case in CASES if case.model not in parity.ENCODERS]
REQUESTS = ("batch", "repeated", "grown", "one token")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Measured]]:
    return parity.run(CASES, tmp_path_factory.mktemp("parity"), timeout=800)


def of(measured: dict[str, list[Measured]], case: Case) -> list[Measured]:
    ranks = measured[str(case)]
    for rank in ranks:
        assert not rank.error, rank.error
    return ranks


@pytest.mark.parametrize("case", CASES, ids=str)
def test_logits_of_a_padded_batch_are_those_of_the_whole_model(measured: dict[str, list[Measured]], case: Case) -> None:
    ranks = of(measured, case)

    assert [rank.rank for rank in ranks] == list(range(case.ranks))
    assert max(rank.logits_error for rank in ranks) <= parity.TOLERANCE


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("case", DECODERS, ids=str)
def test_greedy_tokens_are_those_of_the_whole_model(
    measured: dict[str, list[Measured]], case: Case, request_name: str
) -> None:
    for rank in of(measured, case):
        assert rank.tokens[request_name] == rank.wanted[request_name]
        assert all(len(row) == parity.NEW_TOKENS for row in rank.tokens[request_name])


@pytest.mark.parametrize("model", parity.AUTO_TP)
def test_the_whole_models_answers_vary(measured: dict[str, list[Measured]], model: str) -> None:
    """Equal tokens would show little if a model said the same one again and again."""
    wanted = of(measured, Case(model, "autotp", 1))[0].wanted

    assert len({token for row in wanted["grown"] for token in row}) >= 8


@pytest.mark.parametrize("model", [*parity.AUTO_TP, *parity.ENCODERS])
def test_a_wrong_value_in_any_weight_would_be_noticed(model: str, tmp_path: Path) -> None:
    whole = parity.whole_model(model)
    right = parity.logits_of(whole)
    unnoticed = []
    for name, parameter in whole.named_parameters():
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter[: len(parameter) // 2 + 1] *= 1.5
        if float((parity.logits_of(whole) - right).abs().max()) < 10 * parity.TOLERANCE:
            unnoticed.append(name)
        with torch.no_grad():
            parameter.copy_(kept)

    # A key's bias adds the same number to all scores of a query, which softmax takes out again.
    assert [name for name in unnoticed if not name.endswith(("k_proj.bias", "key.bias"))] == []
