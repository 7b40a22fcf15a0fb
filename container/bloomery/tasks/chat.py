"""From a chat's messages to a prompt, by the model's own chat template."""

from __future__ import annotations

from typing import Any

from bloomery.errors import BadRequestError
from bloomery.tasks.fields import show, text

MAX_MESSAGES = 4096
EXAMPLE = '[{"role": "user", "content": "Shall I compare thee to a summer\'s day?"}]'
# "developer" is OpenAI's newer word for "system", which is the one that templates know.
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_FIELDS = ("role", "content", "name")
_WITHOUT_CONTENT = ("refusal", "audio", "tool_calls", "function_call", "annotations", "reasoning_content")

Message = dict[str, str]


def read_messages(value: object) -> tuple[Message, ...]:
    """The messages of a request, each with its role and its content as one text."""
    if not isinstance(value, list) or not value:
        raise BadRequestError(f"messages is {show(value)}: it must be a list of messages, such as {EXAMPLE}.")
    if len(value) > MAX_MESSAGES:
        raise BadRequestError(f"messages holds {len(value)} messages: at most {MAX_MESSAGES} are read.")
    return tuple(_message(f"messages[{index}]", each) for index, each in enumerate(value))


def _message(where: str, value: object) -> Message:
    if not isinstance(value, dict):
        raise BadRequestError(f"{where} is {show(value)}: it must be an object, such as {EXAMPLE[1:-1]}.")
    for name, content in value.items():
        if name in _FIELDS or (name in _WITHOUT_CONTENT and content in (None, [])):
            continue
        known = ", ".join(_FIELDS)
        reason = "is not served by this model" if name in _WITHOUT_CONTENT else f"is unknown (there are {known})"
        raise BadRequestError(f"{where}.{name} {reason}: leave it out.")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise BadRequestError(f"{where}.role is {show(role)}: it must be one of {', '.join(_ROLES)}.")
    message = {"role": _ROLES[role], "content": _content(f"{where}.content", value.get("content"))}
    if value.get("name") is not None:
        message["name"] = text(f"{where}.name", value["name"])
    return message


def _content(where: str, value: object) -> str:
    """A text, or a list of text parts, which become paragraphs."""
    if not isinstance(value, list):
        return text(where, value)
    parts = []
    for index, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise BadRequestError(
                f"{where}[{index}] is {show(part)}: this model reads text only, such as "
                '{"type": "text", "text": "O"}.'
            )
        parts.append(text(f"{where}[{index}].text", part.get("text")))
    return "\n".join(parts)


def render(tokenizer: Any, messages: tuple[Message, ...]) -> str:
    """The prompt. The template runs in transformers' sandbox; what it refuses is told in its own words."""
    if getattr(tokenizer, "chat_template", None) is None:
        raise BadRequestError(
            "This model has no chat template, so messages cannot become a prompt: send a prompt to /v1/completions, or "
            "give the model a template with option.chat_template (Jinja text, or the path of a file)."
        )
    try:
        prompt: str = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program: it may fail in any way
        raise BadRequestError(
            f"The chat template refuses these messages: {str(error) or type(error).__name__}"
        ) from error
    return prompt
