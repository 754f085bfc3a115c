r"""Step `rules`: questions that cannot be asked, or not be judged, by their wording.

PRIME's scripts drop every question that contains "figure", "prove", "show that" or `\underline{`, wherever the letters stand:
"figure out", "improve" and the digits of `\underline{1} \underline{0}` too. Those are here as `prime_figure`, `prime_proof` and
`prime_blank`. The rules without a prefix look for what is meant: a picture that is not there, a proof, a gap to fill in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from prmkit.config_io import nearest
from prmkit.curate.config import RulesConfig
from prmkit.curate.record import Dropped, Outcome, Record, one_by_one
from prmkit.errors import ConfigError

_NO_TABLE = r"(?<!table\s)(?<!table\sis\s)"
_NONE_FOLLOWS = r"(?![\s\S]*\\begin\{(?:array|tabular|aligned|align|[pb]?matrix)\*?\})"
"""What is shown may be text, and then it is there."""
RULES: Mapping[str, str] = {
    "figure": r"\b(?:the|this|these|next|following|above|adjoining|accompanying)\s+(?:\w+\s+)?figures?\b(?!\s+(?:out|skat))"
    r"|\bfigures?\s+(?:is\s+|are\s+)?(?:below|above|shown|at\s+(?:the\s+)?(?:right|left))|\bfig(?:ure)?\.?\s*\d",
    "diagram": r"\b(?:in|see|on|from)\s+(?:the|this)\s+diagram\b"
    r"|\b(?:in|see|on|from)\s+(?:the|this)\s+(?:picture|drawing|illustration|image|sketch)(?=,|\s+(?:below|above|shown|at))"
    r"|\b(?:diagram|picture|drawing|illustration|graph|sketch)\s+(?:is\s+|are\s+)?(?:shown\s+)?(?:below|above|here)\b"
    rf"|\b{_NO_TABLE}(?:shown|pictured|drawn|depicted)\s+(?:below|above|here|at\s+(?:the\s+)?(?:right|left))\b{_NONE_FOLLOWS}",
    "image": r"\[asy\]|\\begin\{(?:asy|tikzpicture)\}|\\includegraphics|!\[[^\]]*\]\(|<img\b|<image",
    "proof": r"\bprove\b|\bshow\s+that\b",
    "blank": r"\\underline\{(?:\s|~|_|\\q?quad|\\[,;: !]|\\hspace\*?\{[^{}]*\}|\\hphantom\{[^{}]*\}|\\text\{\s*\})*\}"
    r"|_{3,}|(?:\\_){2,}",
    "prime_figure": r"figure",
    "prime_proof": r"prove|show that",
    "prime_blank": r"\\underline\{",
}
"""Name -> what may not be found in a question, in any letter case."""


def rules_step(config: RulesConfig) -> Callable[[Sequence[Record]], Outcome]:
    """The step. Raises ConfigError for a rule that is not known, or a regex that is none."""
    rules = {name: re.compile(_known(name), re.IGNORECASE) for name in config.use}
    for own in config.own:
        name, equals, pattern = own.partition("=")
        if not equals or not name.strip() or not pattern:
            raise ConfigError(f"rules.own: {own!r} is no rule; write it as name=regex")
        try:
            rules[name.strip()] = re.compile(pattern, re.IGNORECASE)
        except re.error as error:
            raise ConfigError(f"rules.own: {pattern!r} is no regular expression: {error}") from None

    def judge(record: Record) -> Record | Dropped:
        if not record.question.strip():
            return Dropped(record=record, reason="empty_question")
        if not record.answer.strip() and not (record.solution or "").strip():
            return Dropped(record=record, reason="empty_answer", detail="neither an answer nor a solution")
        for name, pattern in rules.items():
            if match := pattern.search(record.question):
                return Dropped(record=record, reason=name, detail=f"the question has {match.group()!r}")
        return record

    return one_by_one(judge)


def _known(name: str) -> str:
    if name not in RULES:
        raise ConfigError(f'rules.use: "{name}" is no rule; {nearest(name, RULES)}')
    return RULES[name]
