from __future__ import annotations

import re

import pytest

from prmkit.errors import DataError
from prmkit.tasks.actions import (
    ACTIONS,
    FULL_PROMPT,
    SHORT_PROMPT,
    Action,
    format_demonstration,
    parse_actions,
    split_actions,
)

RESPONSE = """\
[ASSESS]
# Two numbers are given.
# Their sum is asked.
Next action: [ADVANCE]

[ADVANCE]
# 2 + 3 = 5
Next action: [VERIFY]
[VERIFY]
# 5 - 3 = 2
and this step goes on
Next action: [OUTPUT]

[OUTPUT]
2 + 3 = 5.

The answer is \\boxed{5}.
"""


def test_a_response_by_the_rules_is_read() -> None:
    assert parse_actions(RESPONSE) == [
        Action(tag="ASSESS", body="# Two numbers are given.\n# Their sum is asked.", next="ADVANCE"),
        Action(tag="ADVANCE", body="# 2 + 3 = 5", next="VERIFY"),
        Action(tag="VERIFY", body="# 5 - 3 = 2\nand this step goes on", next="OUTPUT"),
        Action(tag="OUTPUT", body="2 + 3 = 5.\n\nThe answer is \\boxed{5}.", next=None),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[ASSESS]\n",
            "",
            "line 1: '# Two numbers are given.' stands outside any action; expected the line '[ASSESS]'",
        ),
        ("[ASSESS]\n", "[ADVANCE]\n", "line 1: [ADVANCE], but a response begins with [ASSESS]"),
        ("\n[VERIFY]\n", "\n[CHECK]\n", "line 9: unknown action [CHECK]; the actions are ASSESS, ADVANCE"),
        ("[VERIFY]\n[VERIFY]", "[THINK]\n[THINK]", "line 8: unknown action [THINK]"),
        ("\n[VERIFY]\n", "\n[PIVOT]\n", "line 9: [PIVOT], but the action before names [VERIFY] as next"),
        ("Next action: [VERIFY]\n", "", "line 8: [ADVANCE] of line 6 has no line 'Next action: [TAG]' before this"),
        ("# 2 + 3 = 5\n", "", "line 6: [ADVANCE] is empty"),
        ("# 2 + 3 = 5\n", "2 + 3 = 5\n", "line 7: [ADVANCE] does not begin with a step; start each step with '#'"),
        ("The answer", "Next action: [PIVOT]\nThe answer", "line 17: [OUTPUT] names a next action, but it is the last"),
        ("The answer", "[PIVOT]\nThe answer", "line 17: [OUTPUT] of line 14 has no line"),
        (RESPONSE[RESPONSE.index("[OUTPUT]\n2") :], "", "line 12: the response ends without [OUTPUT]"),
        (
            RESPONSE[RESPONSE.index("\nNext action: [OUTPUT]") :],
            "",
            "[VERIFY] of line 9 has no line 'Next action: [TAG]'",
        ),
        (RESPONSE[RESPONSE.index("\n2 + 3 = 5.") :], "", "line 14: [OUTPUT] is empty"),
        (RESPONSE, "", "the response ends without [OUTPUT]"),
    ],
)
def test_a_broken_rule_is_named_with_its_line(old: str, new: str, message: str) -> None:
    assert old in RESPONSE
    with pytest.raises(DataError) as error:
        parse_actions(RESPONSE.replace(old, new, 1))
    assert message in str(error.value)


def test_one_step_per_action_and_every_character_in_one() -> None:
    steps = split_actions(RESPONSE)
    texts = [RESPONSE[s.start : s.end] for s in steps]
    assert "".join(texts) == RESPONSE
    assert [t.split("\n")[0] for t in texts] == ["[ASSESS]", "[ADVANCE]", "[VERIFY]", "[OUTPUT]"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("no action at all\n", ["no action at all\n"]),
        ("\n[ASSESS]\n# a", ["\n[ASSESS]\n# a"]),
        ("Well.\n[ASSESS]\n# a", ["Well.\n", "[ASSESS]\n# a"]),
        ("[ASSESS]\n# see [PIVOT] or [1]\n[THINK]\n# b", ["[ASSESS]\n# see [PIVOT] or [1]\n[THINK]\n# b"]),
        ("[ADVANCE]\n[ADVANCE] \n\n", ["[ADVANCE]\n", "[ADVANCE] \n\n"]),
    ],
)
def test_text_that_breaks_the_rules_is_split_too(text: str, parts: list[str]) -> None:
    assert [text[s.start : s.end] for s in split_actions(text)] == parts


def test_a_worked_solution_becomes_actions() -> None:
    actions = parse_actions(format_demonstration("48 / 2 = 24\n\n  48 + 24 = 72 \n", "72"))
    assert [(a.tag, a.next) for a in actions] == [
        ("ASSESS", "ADVANCE"),
        ("ADVANCE", "ADVANCE"),
        ("ADVANCE", "OUTPUT"),
        ("OUTPUT", None),
    ]
    assert [a.body for a in actions[1:]] == [
        "# 48 / 2 = 24",
        "# 48 + 24 = 72",
        "48 / 2 = 24\n48 + 24 = 72\nThe answer is \\boxed{72}.",
    ]


def test_a_solution_that_has_its_box_gets_no_second_one() -> None:
    text = format_demonstration("So we have \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}")
    assert parse_actions(text)[-1].body == "So we have \\boxed{\\frac{1}{2}}."


def test_a_solution_that_would_break_the_format_is_an_error() -> None:
    with pytest.raises(DataError, match="no step to put into an action"):
        format_demonstration(" \n", "1")
    with pytest.raises(DataError, match=r"\[OUTPUT\] names a next action"):
        format_demonstration("a\nNext action: [ADVANCE]", "1")


def test_the_prompts_name_the_seven_tags_and_show_the_form() -> None:
    assert len(ACTIONS) == 7
    for tag, meaning in ACTIONS.items():
        assert f"[{tag}]" in SHORT_PROMPT
        assert f"- [{tag}]: {meaning}" in FULL_PROMPT
        assert meaning not in SHORT_PROMPT
    form = re.compile(r"\[ACTION\]\n# .*\n# .*\nNext action: \[ANOTHER ACTION\]\n\n\.\.\.\n\n\[OUTPUT\]\n")
    assert form.search(SHORT_PROMPT)
    assert form.search(FULL_PROMPT)
    assert "Begin with [ASSESS]" in FULL_PROMPT
