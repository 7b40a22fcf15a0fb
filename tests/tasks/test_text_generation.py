from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from tests.support.scripted_engine import ScriptedEngine

from bloomery import tasks
from bloomery.engines.base import GenerationParameters, Step
from bloomery.errors import UnsupportedModelError, UnsupportedRequestError
from bloomery.formats import Style
from bloomery.protocol import private
from bloomery.protocol.events import Finish, Token, decode_event
from bloomery.tasks import AnswerOptions
from djl_python import Input, Output

MakeInput = Callable[..., Input]


def body_of(output: Output) -> Any:
    assert output.stream_content is None
    return json.loads(output.content.value_at(0))


def lines_of(output: Output) -> list[Any]:
    assert output.stream_content is not None
    assert output.stream_formatter is None
    return [json.loads(line) for line in output.stream_content]


def ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def ask(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_the_answer_is_a_flat_list_with_the_prompt(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, " be"), ids(tokenizer, " or not")])
    output = tasks.answer(engine, request_of(ask(inputs=["To", "To be"])))
    assert (output.code, output.get_property("content-type")) == (200, "application/json")
    assert body_of(output) == [{"generated_text": "To be"}, {"generated_text": "To be or not"}]


def test_the_prompt_is_left_out_when_asked(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, " be")])
    output = tasks.answer(engine, request_of(ask(inputs="To", parameters={"return_full_text": False})))
    assert body_of(output) == [{"generated_text": " be"}]


def test_the_engine_gets_the_prompts_unpadded_and_the_parameters(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [[70], [70]])
    tasks.answer(engine, request_of(ask(inputs=["To", "To be, or not"], parameters={"max_new_tokens": 1, "seed": 5})))
    assert engine.prompts == [ids(tokenizer, "To"), ids(tokenizer, "To be, or not")]
    assert engine.parameters == GenerationParameters(max_new_tokens=1, seed=5)


def test_a_stream_has_one_line_per_step_with_a_text_per_prompt(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "日a"), ids(tokenizer, "b")])
    output = tasks.answer(engine, request_of(ask(inputs=["To", "To be"], stream=True)))
    assert output.get_property("content-type") == "application/jsonlines"
    assert lines_of(output) == [
        {"outputs": ["", "b"]},
        {"outputs": ["", ""]},
        {"outputs": ["日", ""]},
        {"outputs": ["a", ""]},
    ]


def test_a_line_leaves_before_the_next_step_is_computed(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "abcd"), ids(tokenizer, "abcd")])
    output = tasks.answer(engine, request_of(ask(inputs=["To", "To be"], stream=True)))
    assert output.stream_content is not None
    for made, _line in enumerate(output.stream_content, start=1):
        assert engine.steps_made == made


def test_streaming_can_be_the_default_and_be_declined(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "a")])
    assert lines_of(tasks.answer(engine, request_of(b"To", "text/plain"), stream=True)) == [{"outputs": ["a"]}]
    declined = tasks.answer(engine, request_of(ask(inputs="To", stream=False)), stream=True)
    assert body_of(declined) == [{"generated_text": "Toa"}]


def test_our_server_can_ask_for_events(tokenizer: Any, request_of: MakeInput) -> None:
    row = ids(tokenizer, "日!")
    engine = ScriptedEngine(tokenizer, [row], reason="eos_token")
    output = tasks.answer(engine, request_of(ask(inputs="To"), **{private.EVENTS: "1"}))
    assert output.stream_content is not None
    events = [decode_event(line) for line in output.stream_content]
    assert events == [
        Token(0, row[0], ""),
        Token(0, row[1], ""),
        Token(0, row[2], "日"),
        Token(0, row[3], "", last=True),
        Finish(0, "eos_token", 4, len(ids(tokenizer, "To")), "日"),
    ]


def test_a_stop_sequence_ends_the_row_and_is_cut(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, " be. Or not."), ids(tokenizer, " be, or not to")])
    output = tasks.answer(engine, request_of(ask(inputs=["To", "To"], parameters={"stop": ". O"})))
    assert body_of(output) == [{"generated_text": "To be"}, {"generated_text": "To be, or not to"}]


def test_the_engine_stops_when_every_row_met_a_stop_sequence(tokenizer: Any, request_of: MakeInput) -> None:
    row = ids(tokenizer, "ab!cdefgh")
    engine = ScriptedEngine(tokenizer, [row])
    output = tasks.answer(engine, request_of(ask(inputs="To", stream=True, parameters={"stop": ["!"]})))
    assert "".join(line["outputs"][0] for line in lines_of(output)) == "ab"
    assert engine.steps_made < len(row)
    assert engine.closed


def test_a_stream_never_shows_a_part_of_a_stop_sequence(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "aEbEND")])
    output = tasks.answer(engine, request_of(ask(inputs="To", stream=True, parameters={"stop": ["END"]})))
    assert [line["outputs"][0] for line in lines_of(output)] == ["a", "", "Eb", "", "", ""]


def test_what_was_held_back_for_a_stop_sequence_comes_with_the_last_token(
    tokenizer: Any, request_of: MakeInput
) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "aEN")])
    output = tasks.answer(engine, request_of(ask(inputs="To", stream=True, parameters={"stop": ["END"]})))
    assert "".join(line["outputs"][0] for line in lines_of(output)) == "aEN"


def test_an_end_of_text_token_that_is_not_special_is_no_text(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "ab!")], reason="eos_token")
    assert body_of(tasks.answer(engine, request_of(ask(inputs="To")))) == [{"generated_text": "Toab"}]


def test_a_cancelled_row_ends_with_what_it_has(tokenizer: Any, request_of: MakeInput) -> None:
    class Cancelled(ScriptedEngine):
        def generate(self, input_ids: Sequence[Sequence[int]], parameters: GenerationParameters) -> Iterator[Step]:
            yield Step((self.rows[0][0], self.rows[0][0]), (None, "length"))
            yield Step((None, None), ("cancelled", None))

    engine = Cancelled(tokenizer, [ids(tokenizer, "a")])
    output = tasks.answer(engine, request_of(ask(inputs=["To", "To"]), **{private.EVENTS: "1"}))
    assert output.stream_content is not None
    finishes = [event for line in output.stream_content if isinstance(event := decode_event(line), Finish)]
    assert [(event.row, event.reason, event.text) for event in finishes] == [(1, "length", "a"), (0, "cancelled", "a")]


def test_a_request_that_does_not_fit_is_refused_with_figures(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [[70]], max_tokens=20)
    prompts = ["To", "abcdefghijkl"]
    output = tasks.answer(engine, request_of(ask(inputs=prompts, parameters={"max_new_tokens": 10})))
    used = len(ids(tokenizer, prompts[1]))
    error = body_of(output)["error"]
    assert output.code == 400
    assert f"row 1 has {used} tokens and max_new_tokens is 10: together {used + 10}" in error
    assert f"lower max_new_tokens to {20 - used}" in error
    assert engine.steps_made == 0


def test_a_prompt_longer_than_the_limit_is_to_be_shortened(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [[70]], max_tokens=3)
    output = tasks.answer(engine, request_of(ask(inputs="abcdefghijkl")))
    assert output.code == 400
    assert "shorten the prompt" in body_of(output)["error"]


def test_a_malformed_request_is_answered_400(tokenizer: Any, request_of: MakeInput) -> None:
    output = tasks.answer(ScriptedEngine(tokenizer, [[70]]), request_of(b"{"))
    assert (output.code, output.message) == (400, "Bad Request")
    assert body_of(output)["code"] == 400


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_is_answered_400_before_a_stream_begins(
    tokenizer: Any, request_of: MakeInput, stream: bool
) -> None:
    def refuse(step: int) -> None:
        raise UnsupportedRequestError("beams need AutoTP: send num_beams=1")

    engine = ScriptedEngine(tokenizer, [[70]], before_step=refuse)
    output = tasks.answer(engine, request_of(ask(inputs="To", stream=stream)))
    assert (output.code, body_of(output)["error"]) == (400, "beams need AutoTP: send num_beams=1")


def test_a_failure_in_mid_stream_is_raised_for_the_worker_to_report(tokenizer: Any, request_of: MakeInput) -> None:
    def fail(step: int) -> None:
        if step == 1:
            raise RuntimeError("out of memory")

    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "ab")], before_step=fail)
    output = tasks.answer(engine, request_of(ask(inputs="To", stream=True)))
    assert output.stream_content is not None
    stream = iter(output.stream_content)
    assert json.loads(next(stream)) == {"outputs": ["a"]}
    with pytest.raises(RuntimeError, match="out of memory"):
        next(stream)


def test_a_stream_that_nobody_reads_on_stops_the_engine(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "abcdef")])
    output = tasks.answer(engine, request_of(ask(inputs="To", stream=True)))
    stream = iter(output.stream_content or ())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    del output, stream
    assert engine.closed
    assert engine.steps_made == 1


def test_a_checkpoint_without_a_tokenizer_is_not_the_clients_fault(request_of: MakeInput) -> None:
    with pytest.raises(UnsupportedModelError, match="brings no tokenizer"):
        tasks.answer(ScriptedEngine(None, [[70]]), request_of(ask(inputs="To")))


def options(stream: bool = False, **style: Any) -> AnswerOptions:
    return AnswerOptions(stream=stream, style=Style(**style))


def test_an_object_is_streamed_token_by_token(tokenizer: Any, request_of: MakeInput) -> None:
    row = ids(tokenizer, " be")
    engine = ScriptedEngine(tokenizer, [row])
    request = request_of(ask(inputs="To", parameters={"details": True}))
    output = tasks.answer(engine, request, options(stream=True, shape="object"))
    lines = lines_of(output)
    assert [line["token"]["id"] for line in lines] == row
    assert "".join(line["token"]["text"] for line in lines) == lines[-1]["generated_text"] == " be"
    assert lines[-1]["details"] == {"finish_reason": "length", "generated_tokens": len(row), "inputs": "To"}


def test_a_token_leaves_before_the_next_one_is_computed(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "abcd")])
    output = tasks.answer(engine, request_of(ask(inputs="To", stream=True)), options(shape="object"))
    assert output.stream_content is not None
    for made, _line in enumerate(output.stream_content, start=1):
        assert engine.steps_made == made


def test_server_sent_events_are_announced_as_such(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "a")])
    output = tasks.answer(engine, request_of(ask(inputs="To", stream=True)), options(shape="tgi", stream_form="sse"))
    assert output.get_property("content-type") == "text/event-stream"
    (event,) = output.stream_content or ()
    assert event.startswith(b'data: {"index": 1, "token": {')
    assert event.endswith(b"\n\n")


def test_a_stream_of_tokens_takes_one_prompt(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [[70], [70]])
    output = tasks.answer(engine, request_of(ask(inputs=["To", "be"], stream=True)), options(shape="object"))
    assert output.code == 400
    assert "inputs holds 2 texts" in body_of(output)["error"]


def test_bare_text_is_the_answer_when_no_formatter_is_wanted(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, " be")])
    plain = options(plain=True, stream_form="text")
    whole = tasks.answer(engine, request_of(ask(inputs="To")), plain)
    streamed = tasks.answer(engine, request_of(ask(inputs="To", stream=True)), plain)
    several = tasks.answer(engine, request_of(ask(inputs=["To", "be"])), plain)
    assert (whole.get_property("content-type"), whole.content.value_at(0)) == ("text/plain; charset=utf-8", b" be")
    assert b"".join(streamed.stream_content or ()) == b" be"
    assert several.code == 400


def test_details_tell_of_special_tokens(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [[70, tokenizer.eos_token_id]], reason="eos_token")
    request = request_of(ask(inputs="To", parameters={"details": True}))
    (answered,) = body_of(tasks.answer(engine, request, options(shape="tgi")))
    assert [token["special"] for token in answered["details"]["tokens"]] == [False, True]
    assert answered["details"]["finish_reason"] == "eos_token"


def test_truncation_keeps_the_end_of_the_prompt(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [[70]])
    output = tasks.answer(engine, request_of(ask(inputs="To be, or not", parameters={"truncate": 2})))
    assert engine.prompts == [ids(tokenizer, "To be, or not")[-2:]]
    assert body_of(output)[0]["generated_text"].startswith("To be, or not")
    assert tokenizer.truncation_side == "right"


def test_an_encoder_decoder_never_repeats_its_prompt(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, " be")])
    engine.encoder_decoder = True
    request = request_of(ask(inputs="To", parameters={"return_full_text": True}))
    assert body_of(tasks.answer(engine, request)) == [{"generated_text": " be"}]
