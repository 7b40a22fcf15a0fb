"""The forms of an address."""

from __future__ import annotations

import pytest

from bloomery.settings.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://0.0.0.0:9000", Address("http", "0.0.0.0", 9000)),
        ("http://0.0.0.0", Address("http", "0.0.0.0", 8080)),
        ("localhost:9000", Address("http", "localhost", 9000)),
        ("http://[::1]:0/", Address("http", "::1", 0)),
        ("https://host:443", Address("https", "host", 443)),
        ("https://host", Address("https", "host", 8443)),
        ("unix:/run/bloomery.sock", Address("unix", path="/run/bloomery.sock")),
        ("unix:///run/bloomery.sock", Address("unix", path="/run/bloomery.sock")),
    ],
)
def test_each_form_is_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["http://[::1]:9000", "https://host:1", "http://0.0.0.0:9000", "unix:/run/x"])
def test_an_address_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text", ["http://", "http://host:port", "ftp://host:1", "http://host:1/path", "http://me@host:1", "http://h:70000"]
)
def test_what_is_no_address_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="http://HOST:PORT, https://HOST:PORT or unix:/absolute/path"):
        parse_address(text)


@pytest.mark.parametrize(("text", "words"), [("unix:run/x", "absolute"), ("unix:/" + "x" * 103, "103 bytes")])
def test_a_socket_nobody_could_bind_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_address(text)
