"""Text generation over any engine: one request in, one answer or a stream of answers out.

Every rank of a group runs this on the same request and the same steps, so every decision here (a stop sequence met,
all rows complete, a request refused) falls on all ranks at the same step; nothing depends on time or on the reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bloomery import formats
from bloomery.engines.base import TextGenerationEngine
from bloomery.errors import BadRequestError, UnsupportedModelError
from bloomery.formats.jsonlines import CONTENT_TYPE as JSONLINES
from bloomery.processes import rank
from bloomery.protocol import private
from bloomery.protocol.events import Event, Failure, Finish, FinishReason, Token, encode_event
from bloomery.tasks.detokenise import Detokeniser
from bloomery.tasks.request import GenerationRequest, read_request
from bloomery.tasks.stopping import StopSequences
from djl_python import Input, Output


def answer(engine: TextGenerationEngine, inputs: Input, *, stream: bool = False) -> Output:
    """Continue the prompts of ``inputs``.

    The answer is ``[{"generated_text": ...}]``, prompt included unless ``return_full_text`` is false; or, when the
    body says ``"stream": true``, one JSON line ``{"outputs": [new text per prompt]}`` per step. ``stream`` is what a
    request without that field gets. A malformed request is answered 400; an exception is the worker's to report.
    """
    try:
        request = read_request(inputs)
        prompt_ids = tokenise(engine, request)
        # The first step is computed before anything is answered: an engine refuses what it cannot do on that step.
        events = begun(generate(engine, prompt_ids, request))
    except BadRequestError as error:
        return Output().error(str(error), 400, "Bad Request")
    output = Output()
    if inputs.get_property(private.EVENTS) == "1":
        return output.add_stream_content((encode_event(event) for event in events), output_formatter=None)
    if request.stream if request.stream is not None else stream:
        lines = formats.steps_as_jsonlines(events, len(request.prompts))
        return output.add_property("content-type", JSONLINES).add_stream_content(lines, output_formatter=None)
    prefixes = request.prompts if request.return_full_text else [""] * len(request.prompts)
    answers = formats.generated_texts(events, prefixes)
    if isinstance(answers, Failure):
        return output.error(answers.message, answers.code)
    return output.add_property("content-type", "application/json").add_as_json(answers)


def tokenise(engine: TextGenerationEngine, request: GenerationRequest) -> list[list[int]]:
    """The prompts' token ids; a BadRequestError when prompt and new tokens together exceed the engine's limit."""
    if engine.tokenizer is None:
        raise UnsupportedModelError(
            "The checkpoint brings no tokenizer, so no text can be continued: add tokenizer.json."
        )
    prompt_ids: list[list[int]] = engine.tokenizer(list(request.prompts), verbose=False)["input_ids"]
    new = request.parameters.max_new_tokens
    for row, ids in enumerate(prompt_ids):
        if not ids:
            raise BadRequestError(f"The prompt of row {row} has no tokens: there is nothing to continue.")
        if len(ids) + new > engine.max_tokens:
            room = engine.max_tokens - len(ids)
            remedy = f"lower max_new_tokens to {room} or less" if room > 0 else "shorten the prompt"
            raise BadRequestError(
                f"The prompt of row {row} has {len(ids)} tokens and max_new_tokens is {new}: together {len(ids) + new}"
                f", more than the {engine.max_tokens} that this model was loaded for (option.max_tokens); {remedy}."
            )
    return prompt_ids


def generate(
    engine: TextGenerationEngine, prompt_ids: Sequence[Sequence[int]], request: GenerationRequest
) -> Iterator[Event]:
    """The typed events of one request: per step a Token for each running row, and a Finish as a row completes.

    The texts of a row's Tokens together are the text of its Finish.
    """
    rows = [_Row(index, engine, ids, request.parameters.stop_sequences) for index, ids in enumerate(prompt_ids)]
    steps = engine.generate(prompt_ids, request.parameters)
    rank.current.read_prompts(sum(map(len, prompt_ids)))
    try:
        for step in steps:
            log_probs = step.log_probs or (None,) * len(rows)
            for row, token, reason, log_prob in zip(rows, step.tokens, step.finished, log_probs, strict=True):
                yield from row.advance(token, reason, log_prob)
            if all(row.complete for row in rows):
                return
    finally:
        close = getattr(steps, "close", None)
        if close is not None:
            close()  # an engine stops here when stop sequences completed the rows before it would have
    unfinished = [row.index for row in rows if not row.complete]
    raise RuntimeError(f"engine {engine.name} ended its steps and left rows {unfinished} without a reason")


class _Row:
    """One prompt's continuation."""

    def __init__(
        self, index: int, engine: TextGenerationEngine, prompt_ids: Sequence[int], stop_sequences: Sequence[str]
    ) -> None:
        self.index = index
        self.complete = False
        self._prompt_tokens = len(prompt_ids)
        self._tokens = 0
        self._pieces: list[str] = []
        self._detokeniser = Detokeniser(engine.tokenizer, prompt_ids)
        self._stop = StopSequences(stop_sequences)

    def advance(self, token: int | None, reason: FinishReason | None, log_prob: float | None) -> Iterator[Event]:
        """The events of one step. A row that met its stop sequence ignores what the engine still makes of it."""
        if self.complete:
            return
        if token is not None:
            # An end-of-text token is not always a special one, and is never text.
            piece = self._detokeniser.add(token) if reason != "eos_token" else ""
            text, stopped = self._stop.push(piece)
            if reason is not None and not stopped:
                tail, stopped = self._stop.push(self._detokeniser.flush())
                text += tail if stopped else tail + self._stop.flush()
            reason = "stop_sequence" if stopped else reason
            self._tokens += 1
            self._pieces.append(text)
            yield Token(self.index, token, text, log_prob)
        if reason is not None:
            self.complete = True
            yield Finish(self.index, reason, self._tokens, self._prompt_tokens, "".join(self._pieces))


def begun(events: Iterator[Event]) -> Iterator[Event]:
    """The same events, with the first one already computed."""
    first = next(events)

    def all_events() -> Iterator[Event]:
        yield first
        yield from events

    return all_events()
