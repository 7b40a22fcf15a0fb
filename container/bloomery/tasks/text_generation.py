"""Text generation over any engine: one request in, one answer or a stream of answers out.

Every rank of a group runs this on the same request and the same steps, so every decision here (a stop sequence met,
all rows complete, a request refused) falls on all ranks at the same step; nothing depends on time or on the reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bloomery import formats
from bloomery.engines.base import TextGenerationEngine
from bloomery.errors import BadRequestError, UnsupportedModelError
from bloomery.processes import rank
from bloomery.protocol import private
from bloomery.protocol.events import Event, Failure, Finish, FinishReason, Token, encode_event
from bloomery.tasks.detokenise import Detokeniser
from bloomery.tasks.options import AnswerOptions
from bloomery.tasks.request import NO_OPTIONS, GenerationRequest, read_request
from bloomery.tasks.stopping import StopSequences
from djl_python import Input, Output


def answer(engine: TextGenerationEngine, inputs: Input, options: AnswerOptions = NO_OPTIONS) -> Output:
    """Continue the prompts of ``inputs``, in the answer's style that ``options`` choose.

    A stream is made when the body says ``"stream": true``, or does not say and ``options.stream`` does. A malformed
    request is answered 400; an exception is the worker's to report.
    """
    try:
        request = read_request(inputs, options)
        streams = options.stream if request.stream is None else request.stream
        check_prompts(request, options.style, streams)
        prompt_ids = tokenise(engine, request)
        # The first step is computed before anything is answered: an engine refuses what it cannot do on that step.
        events = begun(generate(engine, prompt_ids, request))
    except BadRequestError as error:
        return Output().error(str(error), 400, "Bad Request")
    output = Output()
    if inputs.get_property(private.EVENTS) == "1":
        return output.add_stream_content((encode_event(event) for event in events), output_formatter=None)
    style, asked = options.style, describe(engine, request, options.style)
    if streams:
        pieces = formats.stream_answer(events, asked, style)
        return output.add_property("content-type", style.stream_content_type).add_stream_content(pieces, None)
    rows = formats.gather(events, len(request.prompts))
    if isinstance(rows, Failure):
        return output.error(rows.message, rows.code)
    return output.add_property("content-type", style.content_type).add(formats.complete_answer(rows, asked, style))


def describe(engine: TextGenerationEngine, request: GenerationRequest, style: formats.Style) -> formats.Asked:
    """What the answer's shape depends on. An encoder-decoder's text is never a continuation of its prompt."""
    with_prompt = style.begins_with_prompt if request.return_full_text is None else request.return_full_text
    with_prompt = with_prompt and not engine.encoder_decoder
    return formats.Asked(
        prompts=request.prompts,
        prefixes=request.prompts if with_prompt else ("",) * len(request.prompts),
        listed=request.listed,
        details=style.has_details if request.details is None else request.details,
        seed=request.parameters.seed,
    )


def check_prompts(request: GenerationRequest, style: formats.Style, streams: bool) -> None:
    """Refuse more prompts than the answer's style has a place for."""
    if len(request.prompts) == 1:
        return
    if streams and style.one_prompt_per_stream:
        raise BadRequestError(
            f"inputs holds {len(request.prompts)} texts, and a stream of this model's answer format "
            f'(option.answer_format={style.shape}) carries one: send one text per request, or "stream": false.'
        )
    if style.plain:
        raise BadRequestError(
            f"inputs holds {len(request.prompts)} texts, and this model answers with bare text "
            "(option.output_formatter=none): send one text per request."
        )


def tokenise(engine: TextGenerationEngine, request: GenerationRequest) -> list[list[int]]:
    """The prompts' token ids; a BadRequestError when prompt and new tokens together exceed the engine's limit."""
    prompt_ids = _prompt_ids(tokenizer_of(engine), request)
    check_length(engine, prompt_ids, request.parameters.max_new_tokens)
    return prompt_ids


def tokenizer_of(engine: TextGenerationEngine) -> Any:
    """The engine's tokenizer; UnsupportedModelError when the checkpoint brought none."""
    if engine.tokenizer is None:
        raise UnsupportedModelError(
            "The checkpoint brings no tokenizer, so no text can be continued: add tokenizer.json."
        )
    return engine.tokenizer


def check_length(engine: TextGenerationEngine, prompt_ids: Sequence[Sequence[int]], new: int) -> None:
    """Refuse prompts that have no tokens, or that with ``new`` tokens together exceed the engine's limit."""
    for row, ids in enumerate(prompt_ids):
        if not ids:
            raise BadRequestError(f"The prompt of row {row} has no tokens: there is nothing to continue.")
        # An encoder-decoder counts its prompt and its text apart, and its engine looks after both.
        if len(ids) + new > engine.max_tokens and not engine.encoder_decoder:
            room = engine.max_tokens - len(ids)
            remedy = f"lower max_new_tokens to {room} or less" if room > 0 else "shorten the prompt"
            raise BadRequestError(
                f"The prompt of row {row} has {len(ids)} tokens and max_new_tokens is {new}: together {len(ids) + new}"
                f", more than the {engine.max_tokens} that this model was loaded for (option.max_tokens); {remedy}."
            )


def _prompt_ids(tokenizer: Any, request: GenerationRequest) -> list[list[int]]:
    """``truncate`` keeps the end of a prompt, and the tokens that the tokenizer puts around every text."""
    kept_side = tokenizer.truncation_side
    tokenizer.truncation_side = "left"
    try:
        found: list[list[int]] = tokenizer(
            list(request.prompts), verbose=False, truncation=request.truncate is not None, max_length=request.truncate
        )["input_ids"]
    finally:
        tokenizer.truncation_side = kept_side
    return found


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
        self._detokeniser = Detokeniser(engine.tokenizer, () if engine.encoder_decoder else prompt_ids)
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
            special = self._detokeniser.is_special(token)
            yield Token(self.index, token, text, log_prob, special, last=reason is not None)
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
