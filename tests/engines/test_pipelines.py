"""Labels, fillings and spans, against transformers' own pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from tests.support.rank_pair import run_pair
from tests.support.tiny_models import tiny_encoder, tiny_model, tiny_tokenizer

from bloomery.engines import accelerate, deepspeed
from bloomery.engines.base import GenerationParameters, PipelineEngine
from bloomery.engines.pipelines import TransformersPipeline
from bloomery.errors import BadRequestError, UnsupportedModelError, WorkerError
from bloomery.processes import rank

TEXTS = ["To be, or not to be", "Shall I compare thee to a summer's day? Thou art more lovely", "arms"]
MASKED = [f"{text} [MASK] {text}" for text in TEXTS]
HEADS = {
    "text-classification": "SequenceClassification",
    "token-classification": "TokenClassification",
    "fill-mask": "MaskedLM",
    "zero-shot-classification": "SequenceClassification",
}
LABELS = {"label2id": {"contradiction": 0, "neutral": 1, "entailment": 2}, "num_labels": 3}


def load(path: Path, task: str | None = None) -> TransformersPipeline:
    engine = accelerate.load(path, task=task)
    assert isinstance(engine, TransformersPipeline)
    return engine


def close(found: Any, expected: Any) -> bool:
    """Equal but for the last digits of scores."""
    if isinstance(expected, dict):
        return set(found) == set(expected) and all(close(found[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, str | int):
        return bool(found == expected)
    return bool(found == pytest.approx(float(expected), rel=1e-4))


@pytest.mark.parametrize(
    ("task", "parameters"),
    [
        ("text-classification", {}),
        ("text-classification", {"top_k": 2, "function_to_apply": "sigmoid"}),
        ("token-classification", {}),
        ("token-classification", {"aggregation_strategy": "simple"}),
        ("fill-mask", {"top_k": 3}),
        ("fill-mask", {"targets": ["be", "or"]}),
        ("zero-shot-classification", {"candidate_labels": ["good", "bad"], "multi_label": True}),
    ],
)
def test_the_results_are_those_of_transformers_own_pipeline(
    task: str, parameters: dict[str, Any], tmp_path: Path
) -> None:
    path = tiny_encoder(HEADS[task], tmp_path, **LABELS)
    texts = MASKED if task == "fill-mask" else TEXTS
    own = transformers.pipeline(task, model=str(path))

    found = load(path, task).run(texts, parameters)

    assert close(found, [own([text, text], **parameters)[0] for text in texts])


def test_the_architecture_names_the_task(tmp_path: Path) -> None:
    engine = load(tiny_encoder("TokenClassification", tmp_path))
    assert (engine.task, isinstance(engine, PipelineEngine)) == ("token-classification", True)


def test_a_task_may_be_named_that_the_architecture_does_not_tell(tmp_path: Path) -> None:
    path = tmp_path / "bert"
    path.mkdir()
    transformers.BertModel.from_pretrained(tiny_encoder("MaskedLM", tmp_path / "mlm")).save_pretrained(path)
    transformers.AutoTokenizer.from_pretrained(tmp_path / "mlm").save_pretrained(path)
    (features,) = load(path, "feature-extraction").run(TEXTS[:1], {})
    assert close(features, transformers.pipeline("feature-extraction", model=str(path))(TEXTS[0]))


def test_decoders_classify_too_one_text_at_a_time_when_they_know_no_padding(tmp_path: Path) -> None:
    base = tiny_model("gpt2", tmp_path / "base")
    config = transformers.AutoConfig.from_pretrained(base, num_labels=3, pad_token_id=None)
    model = transformers.GPT2ForSequenceClassification.from_pretrained(base, config=config)
    model.save_pretrained(tmp_path / "classifier")
    tiny_tokenizer().save_pretrained(tmp_path / "classifier")
    own = transformers.pipeline("text-classification", model=str(tmp_path / "classifier"))

    assert close(load(tmp_path / "classifier").run(TEXTS, {}), [own(text)[0] for text in TEXTS])


def test_a_checkpoint_without_the_tasks_head_is_refused(tmp_path: Path) -> None:
    path = tiny_encoder("MaskedLM", tmp_path)
    with pytest.raises(Exception, match=r"lacks weights of this BertForSequenceClassification: .*classifier"):
        load(path, "text-classification")


def test_an_unknown_task_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"task=summarization is not served; it must be one of .*fill-mask"):
        load(tiny_encoder("MaskedLM", tmp_path), "summarization")


def test_filling_needs_a_mask_token(tmp_path: Path) -> None:
    path = tiny_encoder("MaskedLM", tmp_path)
    tiny_tokenizer().save_pretrained(path)
    with pytest.raises(UnsupportedModelError, match="needs a tokenizer with a mask token"):
        load(path)


def test_what_a_pipeline_refuses_is_the_requests_fault(tmp_path: Path) -> None:
    engine = load(tiny_encoder("MaskedLM", tmp_path))
    with pytest.raises(BadRequestError, match="fill-mask: At least one target"):
        engine.run(MASKED[:1], {"targets": [""]})


def test_a_mask_that_is_cut_away_is_the_requests_fault(tmp_path: Path) -> None:
    engine = load(tiny_encoder("MaskedLM", tmp_path))
    with pytest.raises(BadRequestError, match="No mask_token"):
        engine.run(["be " * 300 + "[MASK]"], {"tokenizer_kwargs": {"truncation": True, "max_length": 256}})


def test_more_fillings_than_there_are_words_are_all_of_them(tmp_path: Path) -> None:
    engine = load(tiny_encoder("MaskedLM", tmp_path))
    (found,) = engine.run(MASKED[:1], {"top_k": 10_000})
    assert len(found) == engine.model.config.vocab_size


def test_weights_in_8_bits_give_nearly_the_same(tmp_path: Path) -> None:
    path = tiny_encoder("SequenceClassification", tmp_path)
    engine = accelerate.load(path, dtype="int8")
    assert isinstance(engine, TransformersPipeline)
    exact, rounded = load(path).run(TEXTS, {}), engine.run(TEXTS, {})
    assert [each["label"] for each in rounded] == [each["label"] for each in exact]
    assert [each["score"] for each in rounded] == pytest.approx([each["score"] for each in exact], abs=0.1)


def test_a_cancelled_request_stops_between_items(tmp_path: Path) -> None:
    engine = load(tiny_encoder("TokenClassification", tmp_path))
    rank.current.begin("r1")
    try:
        rank.current.cancel("r1")
        with pytest.raises(WorkerError, match="cancelled"):
            engine.run(TEXTS, {})
    finally:
        rank.current.end()


def test_it_says_that_it_cannot_continue_a_text(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="cannot continue a text"):
        load(tiny_encoder("MaskedLM", tmp_path)).generate([[5]], GenerationParameters())


RUN = """
import json, torch
from bloomery.engines import deepspeed
from djl_python.json_encoding import encode_json
torch.set_num_threads(1)
found = {}
for name, (path, items, parameters) in CASES.items():
    found[name] = deepspeed.load(path, allreduce="gloo").run(items, parameters)
print(json.dumps(json.loads(encode_json(found))))
"""


def test_two_ranks_answer_as_one_process_does(tmp_path: Path) -> None:
    question = [
        {"question": TEXTS[1], "context": " ".join([TEXTS[0]] * 30)},
        {"question": "arms?", "context": TEXTS[0]},
    ]
    cases: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
        "classification": (str(tiny_encoder("SequenceClassification", tmp_path / "cls")), TEXTS, {"top_k": 2}),
        "tokens": (str(tiny_encoder("TokenClassification", tmp_path / "tok")), TEXTS, {}),
        "filling": (str(tiny_encoder("MaskedLM", tmp_path / "mlm", "roberta")), MASKED, {"top_k": 3}),
        "spans": (str(tiny_encoder("QuestionAnswering", tmp_path / "qa")), question, {"top_k": 3}),
    }

    first, second = run_pair(RUN.replace("CASES", repr(cases)))

    assert first == second
    for name, (path, items, parameters) in cases.items():
        assert close(first[name], load(Path(path)).run(items, parameters)), name


@pytest.fixture
def two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")


@pytest.mark.usefixtures("two_ranks")
def test_a_family_that_nobody_knows_how_to_split_is_refused(tmp_path: Path) -> None:
    path = tiny_encoder("SequenceClassification", tmp_path, "electra")
    with pytest.raises(
        UnsupportedModelError, match=r"with a electra model cannot be split over ranks; use engine=Python"
    ):
        deepspeed.load(path)


@pytest.mark.usefixtures("two_ranks")
def test_injected_kernels_are_refused_for_what_they_cannot_do(tmp_path: Path) -> None:
    base = tiny_model("bloom", tmp_path / "base")
    model = transformers.BloomForSequenceClassification.from_pretrained(base)
    model.save_pretrained(tmp_path / "classifier")
    with pytest.raises(UnsupportedModelError, match="serve text generation only; use kernel_inject=False"):
        deepspeed.load(tmp_path / "classifier", kernel_inject=True)
