from __future__ import annotations

import copy
from typing import Any

import pytest

from bloomery.errors import BadRequestError
from bloomery.tasks.chat import read_messages, render

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)


@pytest.fixture
def chatting(tokenizer: Any) -> Any:
    """The tokenizer with a template of its own."""
    copied = copy.deepcopy(tokenizer)
    copied.chat_template = TEMPLATE
    return copied


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


def test_messages_become_a_prompt_by_the_models_template(chatting: Any) -> None:
    messages = read_messages([{"role": "system", "content": "Be brief."}, *user("Who?")])
    assert render(chatting, messages) == "system: Be brief.\nuser: Who?\n>"


def test_a_developers_message_is_the_systems() -> None:
    assert read_messages([{"role": "developer", "content": "Be brief."}])[0]["role"] == "system"


def test_text_parts_become_one_text() -> None:
    parts = [{"type": "text", "text": "To be"}, {"type": "text", "text": "or not"}]
    assert read_messages(user(parts))[0]["content"] == "To be\nor not"


def test_a_name_reaches_the_template(chatting: Any) -> None:
    chatting.chat_template = "{{ messages[0].name }}"
    assert render(chatting, read_messages([{"role": "user", "content": "Who?", "name": "Ann"}])) == "Ann"


def test_fields_that_an_answer_brings_back_are_accepted_while_they_are_empty() -> None:
    answer = {"role": "assistant", "content": "Nay.", "refusal": None, "tool_calls": [], "annotations": []}
    assert read_messages([answer]) == ({"role": "assistant", "content": "Nay."},)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "messages is []: it must be a list of messages"),
        ("Who?", 'messages is "Who?"'),
        (["Who?"], 'messages[0] is "Who?": it must be an object'),
        ([{"content": "Who?"}], "messages[0].role is null: it must be one of system, developer, user, assistant"),
        ([{"role": "tool", "content": "4"}], 'messages[0].role is "tool"'),
        ([{"role": ["user"], "content": "4"}], 'messages[0].role is ["user"]'),
        ([{"role": "user"}], "messages[0].content is null: it must be a text"),
        (user("a\ud83d"), "messages[0].content holds half a surrogate pair"),
        (user([{"type": "image_url", "image_url": {"url": "data:"}}]), "this model reads text only"),
        (user([{"type": "text"}]), "messages[0].content[0].text is null"),
        ([{"role": "user", "content": "4", "colour": 1}], "messages[0].colour is unknown (there are role, content"),
        ([{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}], "messages[0].tool_calls is not served"),
        (user("x") * 4097, "messages holds 4097 messages: at most 4096"),
    ],
)
def test_a_malformed_message_is_named_with_its_place(messages: object, words: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read_messages(messages)
    assert words in str(caught.value)


def test_a_model_without_a_template_names_what_to_do(tokenizer: Any) -> None:
    with pytest.raises(BadRequestError, match=r"/v1/completions.*option\.chat_template"):
        render(tokenizer, read_messages(user("Who?")))


def test_a_templates_refusal_is_told_in_its_own_words(chatting: Any) -> None:
    chatting.chat_template = "{{ raise_exception('Roles must alternate') }}"
    with pytest.raises(BadRequestError, match="Roles must alternate"):
        render(chatting, read_messages(user("Who?")))


def test_a_template_that_breaks_refuses_the_messages(chatting: Any) -> None:
    chatting.chat_template = "{{ messages[0].content + 1 }}"
    with pytest.raises(BadRequestError, match="can only concatenate"):
        render(chatting, read_messages(user("Who?")))


def test_a_template_cannot_leave_its_sandbox(chatting: Any) -> None:
    chatting.chat_template = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(BadRequestError, match="unsafe"):
        render(chatting, read_messages(user("Who?")))
