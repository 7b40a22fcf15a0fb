"""What a checkpoint directory says about its model: class, tokenizer, limits."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from bloomery.engines.remote_code import refused_in_words
from bloomery.errors import CheckpointError, ConfigurationError, UnsupportedModelError
from bloomery.settings.security import CHAT_TEMPLATE, Security

log = logging.getLogger(__name__)

# What is written in config.architectures, by its ending, and what such a checkpoint is for.
_TASKS = (
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("ForConditionalGeneration", "text2text-generation"),
    ("MTModel", "text2text-generation"),
    ("EncoderDecoderModel", "text2text-generation"),
    ("ForMaskedLM", "fill-mask"),
    ("ForSequenceClassification", "text-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ForQuestionAnswering", "question-answering"),
)
_CLASSES = {
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "fill-mask": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "zero-shot-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "feature-extraction": "AutoModel",
}
_OTHER_NAMES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
TASKS = (*_CLASSES, "conversational")
GENERATING = ("text-generation", "text2text-generation", "conversational")


def task_of(config: Any, asked: str | None = None) -> str:
    """The task that was ``asked`` for (option.task); else what the checkpoint is for, by its architecture. A bare base
    model is taken for what it can do best."""
    import transformers

    if asked is not None:
        task = _OTHER_NAMES.get(asked, asked)
        if task not in TASKS:
            raise UnsupportedModelError(f"task={asked} is not served; it must be one of {', '.join(TASKS)}")
        known = getattr(transformers, _class_name(config, task))._model_mapping
        if type(config) not in known and not getattr(config, "auto_map", None):
            raise UnsupportedModelError(
                f"task={asked} is nothing that a {config.model_type} model does; leave the task out, or name a "
                "checkpoint that was made for it"
            )
        return task
    named = (getattr(config, "architectures", None) or [""])[0]
    for ending, task in _TASKS:
        if named.endswith(ending):
            return task
    for task in ("text-generation", "text2text-generation", "fill-mask"):
        candidate = getattr(transformers, _CLASSES[task])
        if type(config) in candidate._model_mapping and not (task == "text-generation" and _encodes(config)):
            return task
    raise UnsupportedModelError(
        f"architectures={getattr(config, 'architectures', None)!r} in config.json is none that this engine serves; "
        f"known endings are {', '.join(ending for ending, _ in _TASKS)}"
    )


def auto_class(config: Any, asked: str | None = None) -> Any:
    """The transformers class that serves the task."""
    import transformers

    return getattr(transformers, _class_name(config, task_of(config, asked)))


def _class_name(config: Any, task: str) -> str:
    if task == "conversational":
        task = "text2text-generation" if config.is_encoder_decoder else "text-generation"
    return _CLASSES[task]


def _encodes(config: Any) -> bool:
    """BERT's relatives can be built as decoders too, which is not what their checkpoints are."""
    return config.model_type in ("bert", "roberta", "xlm-roberta") and not getattr(config, "is_decoder", False)


def token_limit(config: Any, max_tokens: int) -> int:
    """``max_tokens``, or less where the model itself knows fewer positions."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return max_tokens
    if config.model_type in ("roberta", "xlm-roberta"):
        positions -= (config.pad_token_id or 0) + 1  # RoBERTa counts positions from behind the padding token's id
    if positions >= max_tokens:
        return max_tokens
    log.info("max_tokens=%d is lowered to the %d positions that this model knows", max_tokens, positions)
    return positions


def give_generation_config(model: Any, path: Path) -> None:
    """The checkpoint's own generation defaults and end tokens. A request always says how many tokens it wants, so the
    checkpoint's max_length is dropped: transformers would warn at every request that both are given."""
    from transformers import GenerationConfig

    if not model.can_generate():
        return
    if (path / "generation_config.json").is_file():
        try:
            model.generation_config = GenerationConfig.from_pretrained(path)
        except (ValueError, OSError) as error:
            raise CheckpointError(f"{path}/generation_config.json cannot be read: {error}") from error
    model.generation_config.max_length = None


def load_tokenizer(path: Path, *, trust_remote_code: bool = False, chat_template: str | None = None) -> Any:
    """The tokenizer, padding on the left and with a padding token; None when the checkpoint brings none.

    chat_template: Jinja text, or the path of a file with it, in place of the checkpoint's own.
    ConfigurationError: SageMaker's security controls forbid templates, and there is one.
    """
    from transformers import AutoTokenizer

    security = Security.read(os.environ)
    if chat_template:
        security.refuse(CHAT_TEMPLATE, "option.chat_template", "remove it")
    files = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "spiece.model", "vocab.txt")
    if not any((path / file).is_file() for file in files):
        log.warning("%s brings no tokenizer (none of %s): only token ids can be served", path, ", ".join(files))
        return None
    try:
        with refused_in_words(path):
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (ValueError, OSError, KeyError) as error:
        raise CheckpointError(f"{path}: its tokenizer cannot be loaded: {error}") from error
    if getattr(tokenizer, "chat_template", None) is not None:
        security.refuse(CHAT_TEMPLATE, f"the chat template of {path}", "remove it from the checkpoint")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if chat_template:
        give_chat_template(tokenizer, chat_template)
    return tokenizer


def give_chat_template(tokenizer: Any, source: str) -> None:
    """Make ``source``, Jinja text or the path of a file, the tokenizer's chat template."""
    from jinja2 import TemplateSyntaxError

    text = source
    if not any(mark in source for mark in ("{{", "{%", "\n")):  # no template goes without; no path goes with
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"option.chat_template={source}: it is neither Jinja text nor the path of a readable file ({error}); "
                "a relative path is meant from the model directory"
            ) from error
    tokenizer.chat_template = text
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False, add_generation_prompt=True)
    except TemplateSyntaxError as error:
        raise ConfigurationError(f"option.chat_template is not Jinja: line {error.lineno}: {error}") from error
    except Exception as error:
        log.info("the chat template wants other messages than a single question: %s", error)
