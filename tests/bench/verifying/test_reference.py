"""The reference process's work, on tiny models; what an endpoint would have answered is made with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.support.tiny_models import tiny_model

from bloomery.bench.verifying.judging import Bounds, judge
from bloomery.bench.verifying.reference import examine
from bloomery.bench.verifying.served import Served

PROMPTS = ("To be, or not to be", "Shall I compare thee", "slings and arrows")
NEW = 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("models") / "llama")


def answers(checkpoint: Path, dtype: torch.dtype = torch.float32, change: Any = None) -> list[Served]:
    """Greedy, with the log-probabilities of what was chosen."""
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).eval()
    if change is not None:
        change(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    found = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt)["input_ids"]
        new: list[int] = []
        log_probs = []
        with torch.inference_mode():
            while len(new) < NEW and new[-1:] != [tokenizer.eos_token_id]:
                row = model(torch.tensor([ids + new])).logits[0, -1].double().log_softmax(-1)
                new.append(int(row.argmax()))
                log_probs.append(float(row[new[-1]]))
        whole, before = (tokenizer.decode(each, skip_special_tokens=True) for each in (ids + new, ids))
        found.append(Served(prompt, whole[len(before) :], tuple(new), tuple(log_probs)))
    return found


def examined(checkpoint: Path, served: list[Served], dtype: str) -> dict[str, Any]:
    return examine(str(checkpoint), dtype, NEW, [each.as_json() for each in served])


def passed(served: list[Served], found: dict[str, Any]) -> list[bool]:
    bounds = Bounds.of(found["dtype"], found["rows"])
    return [judge(each, row, bounds).passed for each, row in zip(served, found["rows"], strict=True)]


def test_the_model_itself_passes_and_no_gap_is_left(checkpoint: Path) -> None:
    served = answers(checkpoint)
    found = examined(checkpoint, served, "fp32")
    assert passed(served, found) == [True] * 3
    assert [position["gap"] for row in found["rows"] for position in row["positions"]] == [0.0] * sum(
        len(each.ids or ()) for each in served
    )
    assert Bounds.of("fp32", found["rows"]).log_prob < 1e-2


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_what_a_format_rounds_is_explained_by_it_and_not_by_fp32(
    checkpoint: Path, name: str, dtype: torch.dtype
) -> None:
    served = answers(checkpoint, dtype)
    assert passed(served, examined(checkpoint, served, name)) == [True] * 3
    assert not all(passed(served, examined(checkpoint, served, "fp32")))


def test_int8_explains_more_than_fp32(checkpoint: Path) -> None:
    served = answers(checkpoint)
    rounded, exact = (Bounds.of(name, examined(checkpoint, served, name)["rows"]) for name in ("int8", "fp32"))
    assert rounded.gap > 100 * exact.gap


def test_one_wrong_weight_fails(checkpoint: Path) -> None:
    def change(model: Any) -> None:
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight[3, 5] += 1.0

    served = answers(checkpoint, change=change)
    assert not all(passed(served, examined(checkpoint, served, "fp32")))


def test_text_alone_is_followed_to_the_same_tokens(checkpoint: Path) -> None:
    served = answers(checkpoint)
    texts = [Served(each.prompt, each.text) for each in served]
    found = examined(checkpoint, texts, "fp32")
    assert passed(texts, found) == [True] * 3
    for each, row in zip(served, found["rows"], strict=True):
        followed = [position["served"] for position in row["positions"]]
        assert followed == list(each.ids or ())[: len(followed)]


def test_another_text_fails_where_it_begins_to_differ(checkpoint: Path) -> None:
    right = answers(checkpoint)[0]
    wrong = Served(right.prompt, right.text[:4] + "thee thee thee")
    found = examined(checkpoint, [wrong], "fp32")
    assert passed([wrong], found) == [False]


def test_an_end_that_the_server_does_not_list_is_judged_like_a_token(checkpoint: Path) -> None:
    whole = answers(checkpoint)[0]
    short = Served(whole.prompt, whole.text, (whole.ids or ())[:3], None, ended=True)
    positions = examined(checkpoint, [short], "fp32")["rows"][0]["positions"]
    assert len(positions) == 4
    assert positions[3]["served"] == 2  # </s>
    assert positions[3]["gap"] > 0


def test_a_token_beyond_the_vocabulary_is_another_models(checkpoint: Path) -> None:
    row = examined(checkpoint, [Served("To be", "?", (5, 99_999))], "fp32")["rows"][0]
    assert row["unknown_text"] == "token 99999, of a vocabulary of 320"
