"""What is asked: prompts, how many per request, how many new tokens, in the words of the endpoint's API."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bloomery.bench.endpoint.arrivals import Arrival
from bloomery.errors import ConfigurationError

# invocations: LMI's and DJLServing's, which SageMaker's clients send. The others are OpenAI's.
Dialect = Literal["invocations", "completions", "chat"]
DEFAULT_WORDS = 32
# Short and common, so that most tokenizers have one token for each.
_WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work number night point home water room mother area money "
    "story fact month lot right study book eye job word business issue side kind head house service friend father "
    "power hour game line end member law car city community name president team minute idea body"
).split()


@dataclass(frozen=True)
class Workload:
    """One kind of request. ``prompts``: empty means random ones of ``words`` words each, no two alike, so that a cache
    of prefixes gains nothing. ``parameters``: on top of ours; None takes one away."""

    dialect: Dialect = "invocations"
    prompts: tuple[str, ...] = ()
    words: int = DEFAULT_WORDS
    batch: int = 1
    max_new_tokens: int = 256
    stream: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""  # for OpenAI's API
    seed: int = 0

    def body(self, number: int, arrival: Arrival | None = None) -> bytes:
        """Request ``number``, from 0; the same bytes for the same number and seed."""
        prompts = [self._prompt(number * self.batch + row, arrival) for row in range(self.batch)]
        new = arrival.max_new_tokens if arrival and arrival.max_new_tokens else self.max_new_tokens
        content = self._invocation(prompts, new) if self.dialect == "invocations" else self._openai(prompts, new)
        return json.dumps(content).encode()

    def _prompt(self, index: int, arrival: Arrival | None) -> str:
        if arrival and arrival.prompt is not None:
            return arrival.prompt
        if self.prompts and not (arrival and arrival.prompt_words):
            return self.prompts[index % len(self.prompts)]
        words = arrival.prompt_words if arrival and arrival.prompt_words else self.words
        return " ".join(random.Random(f"{self.seed} {index}").choices(_WORDS, k=words))

    def _invocation(self, prompts: Sequence[str], new: int) -> dict[str, Any]:
        # Without ignore_eos the length of an answer depends on the weights, and two engines do different work.
        ours = {"max_new_tokens": new, "do_sample": False, "ignore_eos": True, "details": True}
        inputs: Any = prompts[0] if self.batch == 1 else list(prompts)
        content: dict[str, Any] = {"inputs": inputs, "parameters": _merged(ours, self.parameters)}
        return content | {"stream": True} if self.stream else content

    def _openai(self, prompts: Sequence[str], new: int) -> dict[str, Any]:
        ours: dict[str, Any] = {"max_tokens": new, "temperature": 0, "ignore_eos": True}
        if self.model:
            ours["model"] = self.model
        if self.stream:
            ours |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.dialect == "chat":
            return {"messages": [{"role": "user", "content": prompts[0]}]} | _merged(ours, self.parameters)
        return {"prompt": prompts[0] if self.batch == 1 else list(prompts)} | _merged(ours, self.parameters)


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**ours, **theirs}.items() if value is not None}


def read_prompts(choice: str) -> tuple[tuple[str, ...], int]:
    """``--prompts``: (prompts, words of random ones). A file has one prompt per line, or JSON lines with ``prompt``,
    ``inputs`` or ``text``. Raises ConfigurationError."""
    if choice.startswith("random"):
        return (), _random_words(choice)
    path = Path(choice)
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--prompts {choice}: it cannot be read: {error}; or random:len=32") from error
    if not lines:
        raise ConfigurationError(f"--prompts {choice}: the file has no prompt; write one per line")
    if path.suffix in (".jsonl", ".jsonlines"):
        return tuple(_prompt_of(line, number, choice) for number, line in enumerate(lines, 1)), 0
    return tuple(lines), 0


def _random_words(choice: str) -> int:
    name, _, number = choice.removeprefix("random").removeprefix(":").partition("=")
    if choice == "random":
        return DEFAULT_WORDS
    if name != "len" or not number.isdecimal() or int(number) < 1:
        raise ConfigurationError(f"--prompts {choice}: a number of words is needed, such as random:len=32")
    return int(number)


def _prompt_of(line: str, number: int, choice: str) -> str:
    try:
        record = json.loads(line)
        if isinstance(record, str):
            return record
        return str(next(record[name] for name in ("prompt", "inputs", "text") if name in record))
    except (ValueError, TypeError, StopIteration) as error:
        raise ConfigurationError(
            f'--prompts {choice}, line {number}: {line[:80]!r} has no prompt; such as {{"prompt": "To be"}}'
        ) from error
