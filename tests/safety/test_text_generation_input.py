"""Whatever is asked of the built-in text generation: an answer or a refusal in words, and the rank lives on."""

from __future__ import annotations

import json

from hypothesis import strategies as st
from tests.support.generated import for_all, numbers
from tests.support.server import Server
from tests.support.unharmed import unharmed

SANE = {"inputs": "To be", "parameters": {"max_new_tokens": 2}}
# Arguments of the engine's own among them, that a request must not reach, and ones that mean nothing anywhere.
NAMES = [
    *("max_new_tokens", "max_length", "min_new_tokens", "temperature", "top_k", "top_p", "typical_p", "num_beams"),
    *("repetition_penalty", "num_return_sequences", "seed", "do_sample", "stop", "stop_sequences", "stop_strings"),
    *("return_full_text", "details", "decoder_input_details", "ignore_eos", "eos_token_id", "pad_token_id", "n"),
    *("bad_words_ids", "force_words_ids", "num_beam_groups", "penalty_alpha", "use_cache", "best_of", "truncate"),
    *("logits_processor", "generation_config", "prefix_allowed_tokens_fn", "streamer", "assistant_model", "max_time"),
    *("trust_remote_code", "custom_generate", "output_formatter", "length_penalty", "guidance_scale", "watermark"),
]
NUMBERS = st.sampled_from([0, 1, 2, 3, -1, 2**31, 2**63, 2**64, 10**30, 0.0, -0.5, 0.5, 1.0, 1e-300, 1e300])
TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", "\ud800", "\x00", "</s>", "a" * 3000, "\u202e", "'; DROP TABLE", "../.."]
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
# Few tokens: what is tried is what can be asked, not how long it can take.
PARAMETERS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3).map(
    lambda parameters: {"max_new_tokens": 2, "num_beams": 1, **parameters}
)
INPUTS = TEXTS | st.lists(TEXTS, max_size=3) | VALUES
REQUESTS = st.one_of(
    st.fixed_dictionaries({"inputs": INPUTS}, optional={"parameters": PARAMETERS | VALUES, "stream": VALUES}),
    st.fixed_dictionaries({"inputs": TEXTS, "parameters": PARAMETERS}, optional={"stream": st.booleans()}),
    st.fixed_dictionaries({"messages": VALUES, "max_tokens": NUMBERS}),
    VALUES,
)
RAW = [b"", b"{", b"[" * 5000, b"NaN", b"\xff\xfe", b'{"inputs": "a", "inputs": "b"}', b'{"a": 1' + b"0" * 5000 + b"}"]
KINDS = st.sampled_from(
    [
        *("application/json", "text/plain", "", "application/jsonlines", "application/octet-stream", "tensor/ndlist"),
        *("application/x-www-form-urlencoded", "multipart/form-data; boundary=B", "image/png", "nonsense"),
    ]
)
BODIES = REQUESTS.map(lambda request: json.dumps(request).encode()) | st.sampled_from(RAW)


@numbers(30, 1000)
def test_any_question_is_answered_or_refused_in_words(demonstration: Server, count: int) -> None:
    def check(case: tuple[bytes, str]) -> None:
        body, kind = case
        reply = demonstration.request("POST", "/invocations", body, {"Content-Type": kind})
        assert reply.status in (200, 400, 424), reply
        if reply.status != 200:
            refusal = reply.json()
            assert refusal.get("error") or refusal.get("message"), reply
            assert "Traceback" not in reply.body.decode()

    with unharmed(demonstration):
        for_all(st.tuples(BODIES, KINDS), check, count)
        assert demonstration.post(SANE).json()[0]["generated_text"].startswith("To be")
