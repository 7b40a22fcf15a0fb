"""``option.task=conversational``: DJLServing's dialogue requests, which transformers has no pipeline for any more.

``inputs`` is ``{"text": ..., "past_user_inputs": [...], "generated_responses": [...]}``; the answer has the new turn
and the conversation with it, ready to be sent back with the next ``text``. The prompt is made by the tokenizer's chat
template. Without one, a decoder reads the turns with an end token after each, as DialoGPT was trained; an
encoder-decoder reads them as one text with two blanks between, as BlenderBot was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bloomery import formats
from bloomery.engines.base import TextGenerationEngine
from bloomery.errors import BadRequestError, UnsupportedModelError
from bloomery.protocol.events import Failure
from bloomery.tasks.body import read_body
from bloomery.tasks.chat import render
from bloomery.tasks.fields import show, text
from bloomery.tasks.options import AnswerOptions
from bloomery.tasks.request import GenerationRequest, generation_parameters
from bloomery.tasks.text_generation import check_length, generate
from djl_python import Input, Output

MAX_TURNS = 512
EXAMPLE = (
    '{"inputs": {"text": "And why?", "past_user_inputs": ["Are you well?"], "generated_responses": ["I am not."]}}'
)


@dataclass(frozen=True)
class Conversation:
    """What was said: every response answers the user's turn of the same index, and ``text`` is to be answered."""

    text: str
    past_user_inputs: tuple[str, ...] = ()
    generated_responses: tuple[str, ...] = ()

    def turns(self) -> Iterator[tuple[str, str]]:
        """Role and text of every turn, in order."""
        for user, response in zip(self.past_user_inputs, self.generated_responses, strict=True):
            yield "user", user
            yield "assistant", response
        yield "user", self.text

    def answered(self, response: str) -> dict[str, Any]:
        """The answer in DJLServing's shape."""
        return {
            "generated_text": response,
            "conversation": {
                "past_user_inputs": [*self.past_user_inputs, self.text],
                "generated_responses": [*self.generated_responses, response],
            },
        }


def answer(engine: TextGenerationEngine, inputs: Input, options: AnswerOptions) -> Output:
    """The next turn, or 400 with what is wrong with the request."""
    try:
        record = _answer(engine, inputs, options)
    except BadRequestError as error:
        return Output().error(str(error), 400, "Bad Request")
    if isinstance(record, Failure):
        return Output().error(record.message, record.code)
    return Output().add_property("content-type", "application/json").add_as_json(record)


def answer_batch(engine: TextGenerationEngine, inputs: Input, options: AnswerOptions) -> Output:
    """The next turn of each conversation that the server joined, one after another."""
    output = Output().add_property("content-type", "application/json")
    for index, item in enumerate(inputs.get_batches()):
        try:
            record = _answer(engine, item, options)
        except BadRequestError as error:
            record = Failure(400, str(error))
        told = formats.error_record(record) if isinstance(record, Failure) else record
        output.add_as_json(told, batch_index=index)
    return output


def _answer(engine: TextGenerationEngine, inputs: Input, options: AnswerOptions) -> dict[str, Any] | Failure:
    body = read_body(inputs, EXAMPLE)
    if body.stream:
        raise BadRequestError("stream is true: a conversation's turn is answered as a whole; leave stream out.")
    conversation = _conversation(body.inputs if body.text is None else {"text": body.text})
    request = GenerationRequest((conversation.text,), generation_parameters(body.parameters, options))
    prompt_ids = [prompt_tokens(engine, conversation)]
    check_length(engine, prompt_ids, request.parameters.max_new_tokens)
    rows = formats.gather(generate(engine, prompt_ids, request), 1)
    return rows if isinstance(rows, Failure) else conversation.answered(rows[0].text)


def _conversation(value: object) -> Conversation:
    fields = ("text", "past_user_inputs", "generated_responses", "conversation_id")
    if not isinstance(value, dict) or not set(value) <= set(fields):
        raise BadRequestError(
            f"inputs is {show(value)}: it must be an object with {', '.join(fields)}, for example {EXAMPLE}."
        )
    spoken = text("inputs.text", value.get("text"))
    if not spoken.strip():
        raise BadRequestError(f"inputs.text is an empty text: there is nothing to answer, for example {EXAMPLE}.")
    past = _turns("inputs.past_user_inputs", value.get("past_user_inputs"))
    responses = _turns("inputs.generated_responses", value.get("generated_responses"))
    if len(past) != len(responses):
        raise BadRequestError(
            f"inputs.past_user_inputs holds {len(past)} texts and inputs.generated_responses {len(responses)}: every "
            f"past input has its response, for example {EXAMPLE}."
        )
    return Conversation(spoken, past, responses)


def _turns(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadRequestError(f'{name} is {show(value)}: it must be a list of texts, such as ["I am well."].')
    if len(value) > MAX_TURNS:
        raise BadRequestError(f"{name} holds {len(value)} texts: at most {MAX_TURNS} are taken.")
    return tuple(text(f"{name}[{index}]", turn) for index, turn in enumerate(value))


def prompt_tokens(engine: TextGenerationEngine, conversation: Conversation) -> list[int]:
    """The conversation as the model was trained to read it."""
    tokenizer = engine.tokenizer
    if tokenizer is None:
        raise UnsupportedModelError(
            "The checkpoint brings no tokenizer, so no text can be answered: add tokenizer.json."
        )
    if tokenizer.chat_template:
        messages = tuple({"role": role, "content": said} for role, said in conversation.turns())
        prompt = render(tokenizer, messages)
        found: list[int] = tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
        return found
    if engine.encoder_decoder:
        joined = "  ".join(said for _, said in conversation.turns())
        whole: list[int] = tokenizer(joined, verbose=False)["input_ids"]
        return whole
    end = tokenizer.eos_token_id
    tokens: list[int] = []
    for _, said in conversation.turns():
        tokens += tokenizer(said, add_special_tokens=False, verbose=False)["input_ids"]
        tokens += [] if end is None else [end]
    return tokens
