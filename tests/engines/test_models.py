"""What a checkpoint directory says about its model."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from tests.support.tiny_models import tiny_config, tiny_tokenizer

from bloomery.engines import models
from bloomery.errors import CheckpointError, ConfigurationError, UnsupportedModelError


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("BloomForCausalLM", "AutoModelForCausalLM"),
        ("GPT2LMHeadModel", "AutoModelForCausalLM"),
        ("T5ForConditionalGeneration", "AutoModelForSeq2SeqLM"),
        ("BertForMaskedLM", "AutoModelForMaskedLM"),
        ("RobertaForSequenceClassification", "AutoModelForSequenceClassification"),
    ],
)
def test_the_architecture_named_in_the_config_chooses_the_class(architecture: str, expected: str) -> None:
    config = transformers.BertConfig(architectures=[architecture])

    assert models.auto_class(config).__name__ == expected


@pytest.mark.parametrize(
    ("task", "config", "expected"),
    [
        ("sentiment-analysis", transformers.BertConfig(), "AutoModelForSequenceClassification"),
        ("ner", transformers.BertConfig(), "AutoModelForTokenClassification"),
        ("zero-shot-classification", transformers.BertConfig(), "AutoModelForSequenceClassification"),
        ("feature-extraction", transformers.BertConfig(), "AutoModel"),
        ("conversational", transformers.GPT2Config(), "AutoModelForCausalLM"),
        ("conversational", transformers.T5Config(), "AutoModelForSeq2SeqLM"),
    ],
)
def test_a_task_that_is_asked_for_chooses_the_class(task: str, config, expected: str) -> None:
    assert models.auto_class(config, task).__name__ == expected


def test_a_task_that_a_family_cannot_do_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="task=text2text-generation is nothing that a gpt2 model does"):
        models.auto_class(transformers.GPT2Config(), "text2text-generation")


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BloomForCausalLM", "text-generation"),
        ("MarianMTModel", "text2text-generation"),
        ("BertForQuestionAnswering", "question-answering"),
        ("GPT2ForTokenClassification", "token-classification"),
    ],
)
def test_the_architecture_names_the_task(architecture: str, task: str) -> None:
    assert models.task_of(transformers.BertConfig(architectures=[architecture])) == task


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (transformers.BloomConfig(), "AutoModelForCausalLM"),
        (transformers.BertConfig(), "AutoModelForMaskedLM"),
        (transformers.T5Config(), "AutoModelForSeq2SeqLM"),
        (transformers.OPTConfig(architectures=["OPTModel"]), "AutoModelForCausalLM"),
    ],
    ids=["bloom", "bert", "t5", "bare opt"],
)
def test_a_base_model_is_taken_for_what_it_can_do_best(config, expected: str) -> None:
    assert models.auto_class(config).__name__ == expected


def test_a_model_that_makes_no_text_and_no_logits_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="ViTModel"):
        models.auto_class(transformers.ViTConfig(architectures=["ViTModel"]))


def test_the_limit_is_lowered_to_the_models_positions() -> None:
    assert models.token_limit(tiny_config("opt"), 1024) == 256
    assert models.token_limit(tiny_config("opt"), 100) == 100
    assert models.token_limit(tiny_config("bloom"), 1024) == 1024


def test_robertas_first_positions_cannot_be_used() -> None:
    assert models.token_limit(transformers.RobertaConfig(max_position_embeddings=514, pad_token_id=1), 1024) == 512


def test_a_checkpoint_without_a_tokenizer_is_loaded_without_one(tmp_path: Path) -> None:
    assert models.load_tokenizer(tmp_path) is None


def test_a_broken_tokenizer_is_reported_with_its_directory(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (tmp_path / "tokenizer.json").write_text("{")

    with pytest.raises(CheckpointError, match="its tokenizer cannot be loaded"):
        models.load_tokenizer(tmp_path)


def test_a_tokenizer_without_padding_pads_with_its_end_token_on_the_left(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(tmp_path)

    loaded = models.load_tokenizer(tmp_path)

    assert (loaded.pad_token, loaded.padding_side) == ("</s>", "left")


class TestAChatTemplateOfTheUsers:
    def test_it_may_be_jinja_text(self) -> None:
        tokenizer = tiny_tokenizer()
        models.give_chat_template(tokenizer, "{{ messages[0].content }}")
        assert tokenizer.apply_chat_template([{"role": "user", "content": "Who?"}], tokenize=False) == "Who?"

    def test_it_may_be_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "chat.jinja").write_text("{{ messages[0].content }}é")
        tiny_tokenizer().save_pretrained(tmp_path)
        tokenizer = models.load_tokenizer(tmp_path, chat_template=str(tmp_path / "chat.jinja"))
        assert tokenizer.chat_template == "{{ messages[0].content }}é"

    def test_one_that_wants_other_messages_is_taken(self) -> None:
        tokenizer = tiny_tokenizer()
        models.give_chat_template(tokenizer, "{{ raise_exception('a system message first') }}")
        assert "system message" in tokenizer.chat_template

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            ("missing.jinja", "neither Jinja text nor the path of a readable file"),
            ("{% for", "is not Jinja: line 1"),
            ("a\0b", "neither Jinja text"),
        ],
    )
    def test_one_that_is_none_is_refused_when_the_model_loads(self, source: str, words: str) -> None:
        with pytest.raises(ConfigurationError, match=words):
            models.give_chat_template(tiny_tokenizer(), source)


class TestAChatTemplateThatIsForbidden:
    @pytest.fixture(autouse=True)
    def _control(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SAGEMAKER_SECURITY_CONTROLS", "DISALLOW_CHAT_TEMPLATE")

    def test_the_users_is_refused(self, tmp_path: Path) -> None:
        tiny_tokenizer().save_pretrained(tmp_path)
        with pytest.raises(ConfigurationError, match=r"option\.chat_template is forbidden by DISALLOW_CHAT_TEMPLATE"):
            models.load_tokenizer(tmp_path, chat_template="{{ messages }}")

    def test_the_checkpoints_own_is_refused(self, tmp_path: Path) -> None:
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = "{{ messages }}"
        tokenizer.save_pretrained(tmp_path)
        with pytest.raises(ConfigurationError, match=f"the chat template of {tmp_path} is forbidden"):
            models.load_tokenizer(tmp_path)

    def test_a_checkpoint_without_one_is_served(self, tmp_path: Path) -> None:
        tiny_tokenizer().save_pretrained(tmp_path)
        assert models.load_tokenizer(tmp_path).chat_template is None
