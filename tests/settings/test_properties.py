"""Java's .properties format."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloomery.errors import ConfigurationError
from bloomery.settings.properties import parse, read


def values(text: str) -> dict[str, str]:
    return {key: value for _, key, value in parse(text)}


@pytest.mark.parametrize(
    "line",
    ["engine=DeepSpeed", "engine = DeepSpeed", "engine:DeepSpeed", "engine : DeepSpeed", "engine DeepSpeed",
     "  engine\t=\tDeepSpeed", "engine=DeepSpeed  ", "engine=Deep\\\n   Speed", "engine\\\n =DeepSpeed",
     "\\u0065ngine=DeepSpeed"],
)  # fmt: skip
def test_every_way_to_write_an_entry_means_the_same(line: str) -> None:
    assert values(line) == {"engine": "DeepSpeed"}


def test_comments_and_blank_lines_are_skipped_and_line_numbers_kept() -> None:
    text = "# a comment \\\n\n! another\r\na=1\rb=\\\n 2\n   # indented\nc=3"
    assert list(parse(text)) == [(4, "a", "1"), (5, "b", "2"), (8, "c", "3")]


def test_a_hash_inside_a_value_belongs_to_it() -> None:
    assert values("url=s3://bucket/a#b") == {"url": "s3://bucket/a#b"}


def test_only_the_first_separator_counts() -> None:
    assert values("option.env=A=1,B=2\noption.model_id=s3://bucket/x") == {
        "option.env": "A=1,B=2",
        "option.model_id": "s3://bucket/x",
    }


def test_separators_in_a_key_can_be_escaped() -> None:
    assert values("a\\ b\\:c\\=d=1") == {"a b:c=d": "1"}


def test_escapes() -> None:
    assert values(r"k=a\tb\nc\\d\qe\u00e9\ud83d\ude00") == {"k": "a\tb\nc\\dqeé😀"}


def test_an_even_number_of_backslashes_ends_the_line() -> None:
    assert values("a=1\\\\\nb=2") == {"a": "1\\", "b": "2"}


def test_a_key_without_a_value_is_empty() -> None:
    assert values("a\nb=") == {"a": "", "b": ""}


def test_a_later_line_beats_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "serving.properties").write_text("a=1\na=2\n")
    found = read(tmp_path / "serving.properties")["a"]
    assert (found.text, found.origin) == ("2", f"serving.properties line 2 of {tmp_path}")


@pytest.mark.parametrize(("text", "line"), [("a=1\n=2", "line 2"), ("a=\\u12", "line 1")])
def test_what_cannot_be_read_is_refused_with_its_line(text: str, line: str) -> None:
    with pytest.raises(ConfigurationError, match=line):
        values(text)


def test_white_space_at_a_values_end_stays_where_a_backslash_protects_it() -> None:
    assert values("a=x \nb=x\\  \nc=\\ ") == {"a": "x", "b": "x ", "c": " "}


def test_a_file_in_another_encoding_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "serving.properties").write_bytes("a=é".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="UTF-8"):
        read(tmp_path / "serving.properties")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "serving.properties").write_bytes(b"\xef\xbb\xbfengine=MPI")
    assert list(read(tmp_path / "serving.properties")) == ["engine"]


def escaped(text: str, key: bool) -> str:
    """As java.util.Properties.store writes it; white space at a value's end escaped too."""
    out = []
    for index, unit in enumerate(text.encode("utf-16-be")[i : i + 2] for i in range(0, 2 * utf16_length(text), 2)):
        character = chr(int.from_bytes(unit))
        if character in "=:#!\\" or (character == " " and (key or index == 0)):
            out.append("\\" + character)
        elif character.isascii() and character.isprintable() and character != " ":
            out.append(character)
        else:
            out.append(f"\\u{int.from_bytes(unit):04x}")
    return "".join(out)


def utf16_length(text: str) -> int:
    return len(text.encode("utf-16-be")) // 2


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"))))
def test_what_java_writes_is_read_back(entries: dict[str, str]) -> None:
    text = "".join(f"{escaped(key, True)}={escaped(value, False)}\n" for key, value in entries.items())
    assert values(text) == entries
