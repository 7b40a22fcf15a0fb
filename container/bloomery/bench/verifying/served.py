"""What the endpoint answered, greedily: tokens where it tells them, else text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bloomery.bench.endpoint.clients import Client
from bloomery.bench.endpoint.workload import Dialect
from bloomery.errors import BenchmarkError


@dataclass(frozen=True)
class Served:
    """One answer. ``ids`` and ``log_probs`` are None where the endpoint does not tell them; ``ended``: it says that the
    text ended by itself."""

    prompt: str
    text: str
    ids: tuple[int, ...] | None = None
    log_probs: tuple[float | None, ...] | None = None
    ended: bool = False

    def as_json(self) -> dict[str, Any]:
        """For the process that has the model."""
        return asdict(self)


def ask_all(
    connect: Callable[[], Client], dialect: Dialect, prompts: Sequence[str], new_tokens: int, parameters: dict[str, Any]
) -> list[Served]:
    """One request per prompt, one after the other: together they might be padded, which changes what is rounded.
    Raises BenchmarkError on the first that is not answered."""
    return asyncio.run(_ask_all(connect, dialect, prompts, new_tokens, parameters))


async def _ask_all(
    connect: Callable[[], Client], dialect: Dialect, prompts: Sequence[str], new_tokens: int, parameters: dict[str, Any]
) -> list[Served]:
    client = connect()
    try:
        found = []
        for prompt in prompts:
            reply = await client.ask(_body(dialect, prompt, new_tokens, parameters), stream=False)
            if reply.failure:
                raise BenchmarkError(f"the endpoint did not answer {prompt[:60]!r}: {reply.failure}: {reply.reason}")
            found.append(read_answer(prompt, reply.body))
        return found
    finally:
        await client.close()


def _body(dialect: Dialect, prompt: str, new_tokens: int, parameters: dict[str, Any]) -> bytes:
    ours: dict[str, Any]
    if dialect == "invocations":
        ours = {"max_new_tokens": new_tokens, "do_sample": False, "details": True, "return_full_text": False}
        asked = {name: value for name, value in (ours | parameters).items() if value is not None}
        return json.dumps({"inputs": prompt, "parameters": asked}).encode()
    ours = {"max_tokens": new_tokens, "temperature": 0}
    if dialect == "chat":
        raise BenchmarkError("a chat's template changes the prompt: verify /invocations or /v1/completions")
    return json.dumps({"prompt": prompt} | ours | parameters).encode()


def read_answer(prompt: str, body: bytes) -> Served:
    """LMI's, DJLServing's and TGI's lists and objects, OpenAI's completions, and bare text. Raises BenchmarkError."""
    try:
        record: Any = json.loads(body)
    except ValueError:
        return Served(prompt, _continuation(prompt, body.decode(errors="replace")))
    while isinstance(record, list) and record:
        record = record[0]
    if isinstance(record, dict) and "choices" in record:
        choice = record["choices"][0]
        return Served(prompt, str(choice.get("text", "")), ended=choice.get("finish_reason") == "stop")
    if not isinstance(record, dict) or "generated_text" not in record:
        raise BenchmarkError(f"the endpoint's answer is in no known form: {body[:200]!r}")
    details = record.get("details") or {}
    text = _continuation(prompt, str(record["generated_text"]))
    ended = details.get("finish_reason") in ("eos_token", "stop")
    tokens = details.get("tokens")
    if not tokens:
        return Served(prompt, text, ended=ended)
    return Served(
        prompt,
        text,
        tuple(_id(token["id"]) for token in tokens),
        tuple(token.get("log_prob", token.get("logprob")) for token in tokens),
        ended,
    )


def _id(value: Any) -> int:
    return int(value[0] if isinstance(value, list) else value)  # DJLServing 0.27 told lists


def _continuation(prompt: str, text: str) -> str:
    return text.removeprefix(prompt)
