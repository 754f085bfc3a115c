"""Steps hold every character once, and tokens meet them by character offsets."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK

from prmkit.data.align import step_of_tokens
from prmkit.data.steps import Splitter, split_after, split_lines, split_paragraphs
from prmkit.data.types import Step

texts = st.text(alphabet="ab.; \n\té😀\u2028", max_size=30)
splitters = st.sampled_from(
    [split_lines, split_paragraphs, split_after(r";"), split_after(r"\.\s"), split_after(r"a*")]
)


def pieces(text: str, split: Splitter) -> list[str]:
    return [text[step.start : step.end] for step in split(text)]


def steps(*ends: int) -> list[Step]:
    return [Step(start=a, end=b) for a, b in zip((0, *ends[:-1]), ends, strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("3+8=11", ["3+8=11"]),
        ("3+8=11\n", ["3+8=11\n"]),
        ("3+8=11\n11+5=16", ["3+8=11\n", "11+5=16"]),
        ("a\n\n\nb\nc\n", ["a\n\n\n", "b\n", "c\n"]),
        ("a\nb\n  \t", ["a\n", "b\n  \t"]),
        ("  \t", ["  \t"]),
    ],
)
def test_lines(text: str, expected: list[str]) -> None:
    assert pieces(text, split_lines) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\nline\n\ntwo", ["one\nline\n\n", "two"]),
        ("one\n \t\n\n  two\n\n", ["one\n \t\n\n", "  two\n\n"]),
        ("one\n", ["one\n"]),
    ],
)
def test_paragraphs(text: str, expected: list[str]) -> None:
    assert pieces(text, split_paragraphs) == expected


def test_the_separator_stays_with_the_step_that_it_closes() -> None:
    assert pieces("3+8=11;11+5=16#16", split_after(";")) == ["3+8=11;", "11+5=16#16"]


def test_matches_without_characters_make_no_step() -> None:
    assert pieces("bab", split_after("a*")) == ["ba", "b"]


@given(text=texts, split=splitters)
@QUICK
def test_every_character_is_in_exactly_one_step(text: str, split: Splitter) -> None:
    assert "".join(pieces(text, split)) == text
    assert all(pieces(text, split))
    bounds = split(text)
    assert [step.start for step in bounds] == [0, *(step.end for step in bounds)][: len(bounds)]


@given(text=texts)
@QUICK
def test_a_line_ends_where_a_run_of_newlines_ends(text: str) -> None:
    for before, after in zip(pieces(text, split_lines), pieces(text, split_lines)[1:], strict=False):
        assert before.endswith("\n")
        assert not after.startswith("\n")


@given(text=texts, split=splitters, data=st.data())
@QUICK
def test_every_token_is_in_the_step_of_its_last_character(text: str, split: Splitter, data: st.DataObject) -> None:
    token_ends = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    bounds = split(text)
    result = step_of_tokens(bounds, token_ends)
    assert len(result) == len(token_ends)
    for end, index in zip(token_ends, result, strict=True):
        holders = [k for k, step in enumerate(bounds) if step.start <= end - 1 < step.end]
        assert index == (holders[0] if holders else 0)


def test_tokens_within_their_steps() -> None:
    assert step_of_tokens(steps(2, 5), [1, 2, 3, 5]) == [0, 0, 1, 1]


def test_a_token_over_a_boundary_belongs_to_the_later_step() -> None:
    # characters 0-1, 2-4 and 5: the second token ends inside the second step, the third covers the end of it and the third
    assert step_of_tokens(steps(2, 5, 6), [1, 4, 6]) == [0, 1, 2]


def test_a_token_may_jump_over_a_whole_step() -> None:
    assert step_of_tokens(steps(2, 3, 6), [1, 5, 6]) == [0, 2, 2]


def test_a_token_without_characters_joins_the_step_before_it() -> None:
    # nothing yet, "a\n", an end token; then the same where the next step has begun
    assert step_of_tokens(steps(2), [0, 2, 2]) == [0, 0, 0]
    assert step_of_tokens(steps(2, 4), [0, 2, 2, 4, 4]) == [0, 0, 0, 1, 1]


def test_a_text_without_steps_puts_every_token_in_step_0() -> None:
    assert step_of_tokens([], [0, 0]) == [0, 0]


def test_no_tokens_no_steps() -> None:
    assert step_of_tokens(steps(2), []) == []


def byte_ends(text: str) -> list[int]:
    """`token_ends` of a tokenizer with a token per byte: how many characters are whole after each."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    ends, count = [], 0
    for byte in text.encode():
        count += len(decoder.decode(bytes([byte])))
        ends.append(count)
    return ends


def test_bytes_of_a_character_join_the_step_before_until_it_is_whole() -> None:
    # "é" has 2 bytes, the newline 1, the emoji that opens the second step 4: three of them end no character of their own
    text = "é\n😀b"
    assert byte_ends(text) == [0, 1, 2, 2, 2, 2, 3, 4]
    assert step_of_tokens(split_lines(text), byte_ends(text)) == [0, 0, 0, 0, 0, 0, 1, 1]


@given(text=texts, split=splitters)
@QUICK
def test_with_a_token_per_byte_every_step_has_a_token(text: str, split: Splitter) -> None:
    assert sorted(set(step_of_tokens(split(text), byte_ends(text)))) == list(range(len(split(text))))
