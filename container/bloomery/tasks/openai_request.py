"""A request in the OpenAI form, for chat.completions (``messages``) or completions (``prompt``).

Every field of either is known here: served, without any effect on the answer, or refused in words unless its value
asks for nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bloomery.engines.base import GenerationParameters
from bloomery.errors import BadRequestError
from bloomery.tasks.chat import Message, read_messages
from bloomery.tasks.fields import boolean, integer, number, show, stop_sequences, text

MAX_ROWS = 512
COMPLETION_TOKENS = 16  # OpenAI's default of /v1/completions; a chat may fill what room there is
_GREEDY_BELOW = 1e-4  # a temperature nearer to 0 overflows the logits, and chooses what greedy decoding chooses

Prompt = str | list[int]
Check = Callable[[str, object], Any]


@dataclass(frozen=True)
class OpenAIRequest:
    """One checked request. ``max_tokens`` is None when the client sets no limit."""

    messages: tuple[Message, ...]  # of a chat, or
    prompts: tuple[Prompt, ...]  # texts or token ids
    parameters: GenerationParameters  # max_new_tokens is not among them yet
    max_tokens: int | None
    copies: int = 1
    echo: bool = False
    log_probs: bool = False
    stream: bool | None = None

    @property
    def chat(self) -> bool:
        """Whether there are messages."""
        return bool(self.messages)


def is_openai(body: object) -> bool:
    """Whether a parsed body is of the OpenAI form; ``inputs`` is the mark of the other one."""
    return isinstance(body, dict) and "inputs" not in body and ("messages" in body or "prompt" in body)


def read_openai(body: Mapping[str, object]) -> OpenAIRequest:
    """The request in ``body``; a BadRequestError names the field, the value, and what would be right."""
    chat = "messages" in body
    if chat and "prompt" in body:
        raise BadRequestError("The body has both messages and prompt: send messages for a chat, prompt to continue it.")
    checks = _CHAT if chat else _COMPLETION
    given: dict[str, Any] = {}
    for name, value in body.items():
        try:
            checked = _field(name, value, checks)
        except BadRequestError as error:
            error.param = name
            raise
        if checked is not None:
            given[name] = checked
    _check_together(given)
    prompts = () if chat else _required(given, "prompt")
    return OpenAIRequest(
        messages=_required(given, "messages") if chat else (),
        prompts=prompts,
        parameters=_parameters(given),
        max_tokens=_max_tokens(given, chat),
        copies=_copies(given, len(prompts) or 1),
        echo=given.get("echo", False),
        log_probs=given.get("logprobs", False) is not False,
        stream=given.get("stream"),
    )


def _field(name: str, value: object, checks: Mapping[str, Check]) -> Any:
    """The field's checked value; None when it asks for nothing."""
    if name not in checks and name not in _REFUSED and name not in _IGNORED:
        raise BadRequestError(_unknown(name, checks))
    if value is None or name in _IGNORED or (name in _REFUSED and value in _REFUSED[name][0]):
        return None
    if name in _REFUSED:
        raise BadRequestError(f"{name} is {show(value)}: {_REFUSED[name][1]}")
    return checks[name](name, value)


def _unknown(name: str, checks: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, [*checks, *_REFUSED, *_IGNORED], 1)
    return f"Unknown field {name!r}: " + (f"did you mean {close[0]!r}?" if close else f"there are {', '.join(checks)}.")


def _required(given: Mapping[str, Any], name: str) -> Any:
    if name not in given:
        raise BadRequestError(f"{name} is null: it must be given.")
    return given[name]


def _check_together(given: Mapping[str, Any]) -> None:
    if "stream_options" in given and not given.get("stream"):
        raise BadRequestError("stream_options is given without stream: it is read with stream=true only.")
    if given.get("echo") and "logprobs" in given:
        raise BadRequestError("echo and logprobs together ask for the prompt's log-probabilities: send one of them.")


def _max_tokens(given: Mapping[str, Any], chat: bool) -> int | None:
    old, new = given.get("max_tokens"), given.get("max_completion_tokens")
    if old is not None and new is not None and old != new:
        raise BadRequestError(
            f"max_tokens is {old} and max_completion_tokens is {new}: they are two names of one limit; send one."
        )
    limit = old if new is None else new
    return COMPLETION_TOKENS if limit is None and not chat else limit


def _copies(given: Mapping[str, Any], prompts: int) -> int:
    copies: int = given.get("n", 1)
    if given.get("best_of", copies) != copies:
        best_of = given["best_of"]
        raise BadRequestError(f"best_of is {best_of} and n is {copies}: every answer is returned; send n alone.")
    if prompts * copies > MAX_ROWS:
        raise BadRequestError(
            f"n={copies} of {prompts} prompt(s) are {prompts * copies} answers: at most {MAX_ROWS} fit one request."
        )
    return copies


def _parameters(given: Mapping[str, Any]) -> GenerationParameters:
    """OpenAI samples unless the temperature is 0. Where temperature, top_p or top_k are absent, the checkpoint's own
    generation_config.json decides, and without one temperature and top_p are 1, as OpenAI's are."""
    temperature = given.get("temperature")
    sample = temperature is None or temperature >= _GREEDY_BELOW
    return GenerationParameters(
        do_sample=sample,
        temperature=temperature if sample else None,
        top_p=given.get("top_p") if sample else None,
        top_k=given.get("top_k") if sample else None,
        repetition_penalty=given.get("repetition_penalty"),
        seed=given.get("seed"),
        stop_sequences=given.get("stop", ()),
        ignore_eos=given.get("ignore_eos", False),
    )


def _prompts(name: str, value: object) -> tuple[Prompt, ...]:
    """One prompt or several, each a text or token ids."""
    if isinstance(value, str) or _are_tokens(value):
        return (_prompt(name, value),)
    if not isinstance(value, list) or not value:
        raise BadRequestError(f'{name} is {show(value)}: it must be a text or a list of texts, such as "To be".')
    return tuple(_prompt(f"{name}[{index}]", each) for index, each in enumerate(value))


def _are_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)


def _prompt(name: str, value: object) -> Prompt:
    if isinstance(value, list) and _are_tokens(value):
        return value
    if not text(name, value):
        raise BadRequestError(f'{name} is an empty text: there is nothing to continue; send a word, such as "To be".')
    return str(value)


def _messages(_name: str, value: object) -> tuple[Message, ...]:
    return read_messages(value)


def _stream_options(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequestError(f'{name} is {show(value)}: it must be an object, such as {{"include_usage": true}}.')
    for option, wanted in value.items():
        if option not in ("include_usage", "include_obfuscation"):
            raise BadRequestError(f"{name}.{option} is unknown: there is include_usage.")
        boolean(f"{name}.{option}", wanted)
    return value


def _seed(name: str, value: object) -> int:
    """OpenAI's may be negative, a generator's may not."""
    return integer(-(2**63), 2**63 - 1, 42)(name, value) % 2**63


def _chosen_only(name: str, value: object) -> bool:
    """The ``logprobs`` of completions: how many alternatives to tell beside the chosen token."""
    if integer(0, 5, 0)(name, value) > 0:
        raise BadRequestError(f"{name} is {value}: alternatives to the chosen token are not told; send {name}=0.")
    return True


_tokens = integer(1, 2**31 - 1, 64)
_BOTH: dict[str, Check] = {
    "max_tokens": _tokens,
    "temperature": number(0, 2, 0.7),
    "top_p": number(1e-4, 1, 0.9),
    "n": integer(1, 128, 1),
    "stop": stop_sequences,
    "seed": _seed,
    "stream": boolean,
    "stream_options": _stream_options,
    # Not OpenAI's, and sent to most servers of this form through the client's extra_body.
    "top_k": integer(0, 2**31 - 1, 50),
    "repetition_penalty": number(0.01, 100, 1.1),
    "ignore_eos": boolean,
}
_CHAT: dict[str, Check] = {
    "messages": _messages,
    "max_completion_tokens": _tokens,
    "logprobs": boolean,
    **_BOTH,
}
_COMPLETION: dict[str, Check] = {
    "prompt": _prompts,
    "best_of": integer(1, 128, 1),
    "echo": boolean,
    "logprobs": _chosen_only,
    **_BOTH,
}
# Values that ask for nothing, and why every other one is refused.
_NO_TOOLS = "this model calls no tools; leave it out."
_TEXT_ONLY = "this model writes text only; leave it out."
_REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "top_logprobs": ((0,), "alternatives to the chosen token are not told; send logprobs=true without it."),
    "presence_penalty": ((0,), "it is not served; repetition_penalty, such as 1.1, is."),
    "frequency_penalty": ((0,), "it is not served; repetition_penalty, such as 1.1, is."),
    "logit_bias": (({},), "it is not served; leave it out."),
    "suffix": (("",), "the model writes what follows a prompt, not what lies before an end; leave it out."),
    "tools": (([],), _NO_TOOLS),
    "tool_choice": (("none", "auto"), _NO_TOOLS),
    "functions": (([],), _NO_TOOLS),
    "function_call": (("none", "auto"), _NO_TOOLS),
    "response_format": (({"type": "text"},), 'the answer is text; send {"type": "text"} or leave it out.'),
    "modalities": ((["text"],), _TEXT_ONLY),
    "audio": ((), _TEXT_ONLY),
    "prediction": ((), "it is not served; leave it out."),
    "web_search_options": ((), _NO_TOOLS),
    "reasoning_effort": (("none",), "this model does not reason apart from its answer; leave it out."),
}
# About the client, its account or its bill: of no effect on the answer.
_IGNORED = frozenset(
    [
        "model",
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "parallel_tool_calls",
        "verbosity",
    ]
)
