"""Secrets do not print."""

from __future__ import annotations

import logging

import pytest

from bloomery.protocol.frames import Request, decode_bytes, decode_request, encode_request
from bloomery.settings.secret import Secret, guard


def test_no_way_of_printing_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret("hush")
    logging.getLogger("test").warning("token %s %r", secret, {"token": secret})
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r:>20}", "%s" % secret, str([secret]), caplog.text]  # noqa: UP031
    assert not [text for text in shown if "hush" in text]


def test_a_worker_receives_what_it_holds() -> None:
    frame = encode_request(Request({"token": Secret("hush")}))
    (request, _), _ = decode_bytes(decode_request(), frame)
    assert request.properties == {"token": "hush"}
    assert Secret("hush").reveal() == "hush"


@pytest.mark.parametrize(
    "name",
    ["option.hf_token", "HF_TOKEN", "token", "option.aws_secret_access_key", "AWS_ACCESS_KEY_ID", "db_password",
     "option.api_key", "option.use_auth_token", "AWS_SESSION_TOKEN", "MY_SECRET"],
)  # fmt: skip
def test_names_that_say_secret(name: str) -> None:
    assert isinstance(guard(name, "x"), Secret)


@pytest.mark.parametrize("name", ["option.max_tokens", "option.pad_token", "option.tokenizer", "max_new_tokens", "key"])
def test_names_that_do_not(name: str) -> None:
    assert not isinstance(guard(name, "x"), Secret)
