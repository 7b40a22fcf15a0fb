"""Secrets do not print."""

from __future__ import annotations

import logging

import pytest

from bloomery.protocol.frames import Request, decode_bytes, decode_request, encode_request
from bloomery.settings.secret import Secret, guard, redact


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


KEYS = ["X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "AWSAccessKeyId", "Signature", "sig", "token"]


@pytest.mark.parametrize("key", KEYS)
def test_a_presigned_url_prints_without_what_lets_one_in(key: str) -> None:
    url = f"https://bucket.s3.amazonaws.com/m.tar.gz?X-Amz-Date=20260101&{key}=hush%2Fhush&x=1"
    held = guard("option.model_id", url)
    assert str(held) == f"https://bucket.s3.amazonaws.com/m.tar.gz?X-Amz-Date=20260101&{key}=***&x=1"
    assert "hush" not in f"{held}{held!r}{[held]}"
    assert "".join(held) == url


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:hush@host/x", "https://***@host/x"),
        ("see https://hush@host, or http://a:h@hush@b:80/", "see https://***@host, or http://***@b:80/"),
        ("https://host/x?token=hush", "https://host/x?token=***"),
        ("u=https%3A%2F%2Fhost%3Fsig%3Dhush%26b%3D1", "u=https%3A%2F%2Fhost%3Fsig%3D***%26b%3D1"),
        ("'https://host/x?sig=hush' is no URL", "'https://host/x?sig=***' is no URL"),
    ],
)
def test_urls_are_redacted_wherever_they_stand(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text", ["s3://bucket/prefix/", "https://host/x?tokenizer=a&page=2", "me@host", "max_tokens=5", "a=1;b=2"]
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert redact(text) == text
    assert type(guard("option.model_id", text)) is str


def test_a_worker_receives_the_whole_url() -> None:
    url = "https://user:hush@host/?sig=hush"
    (request, _), _ = decode_bytes(decode_request(), encode_request(Request({"u": guard("u", url)})))
    assert request.properties == {"u": url}
