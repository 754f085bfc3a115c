r"""Short answers in words: exact match and F1 after the usual normalisation, yes or no, multiple choice.

Normalisation and F1 are those of SQuAD (Rajpurkar et al., arXiv:1606.05250, its evaluation script): lower case, no
punctuation, no English articles, single spaces; the best of several references counts. Added to it: Unicode forms and
digits are made plain, ideographs are words of their own, and plain numbers are compared by value.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import TracebackType
from typing import Self

from prmkit.config import QAConfig
from prmkit.data.types import Prompt, Verdict
from prmkit.verify.qa_answers import find_answer

_SHOWN_CHARS = 80
_ASCII_PUNCTUATION = frozenset(string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Kana and Chinese characters: written without spaces, so each is a word."""
_WORD = re.compile(rf"[{_IDEOGRAPH}]|[^\s{_IDEOGRAPH}]+")
_NUMBER = re.compile(r"[-+]?(?:(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)?(?:\.\d+)?|\d+/0*[1-9]\d*)", re.ASCII)
_NUMBER_CHARS = 80

_YES = (
    *("yes", "true", "oui", "si", "s\u00ed", "s\u00ec", "ja", "sim", "tak", "evet", "\u0434\u0430", "\u662f", "\u5bf9"),
    *("\u306f\u3044", "\ub124", "\u0939\u093e\u0901", "\u0646\u0639\u0645"),
)
_NO = (
    *(
        "no",
        "false",
        "non",
        "nein",
        "nee",
        "n\u00e3o",
        "nie",
        "hay\u0131r",
        "\u043d\u0435\u0442",
        "\u5426",
        "\u4e0d\u662f",
    ),
    *("\u3044\u3044\u3048", "\uc544\ub2c8\uc694", "\u0928\u0939\u0940\u0902", "\u0644\u0627"),
)
_POLARITY = dict.fromkeys(_YES, True) | dict.fromkeys(_NO, False)
_OPENING = re.compile(r"\u662f(?!\u5426)|\u4e0d\u662f|\u5426|\u306f\u3044|\u3044\u3044\u3048|\ub124|\uc544\ub2c8\uc694")
"""The same where a sentence goes on without a space; "\u662f\u5426" asks."""
_PLAIN_POLARITY = {"yes": True, "true": True, "no": False, "false": False}

_NEGATIONS = frozenset(("not", "never", "isnt", "arent", "wasnt", "werent", "cannot", "cant", "doesnt"))
"""As `normalise` leaves them."""

_FIRST_LETTER = re.compile(
    r"(?:(?:the|correct|options?|choices?|answers?|is|are)\s+)*[(\[]?([A-Za-z])[)\]]?(?=$|[\s.:,;)\]&/-])"
)
_NEXT_LETTER = re.compile(r"\s*(?:,\s*(?:and|or)\b|[,;|&/]|(?:and|or)\b)\s*[(\[]?([A-Za-z])[)\]]?(?=$|[\s.:,;)\]&/-])")


class QAVerifier:
    """Compares the answer that a response gives with `Prompt.answer` and the aliases in `Prompt.meta["answers"]`.

    Decided in this process: nothing here can hang. `Prompt.meta["choices"]` (a list, or letter -> text) makes a question
    one of multiple choice.
    """

    def __init__(self, config: QAConfig | None = None) -> None:
        self._config = config or QAConfig()

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        """One verdict per (prompt, response text), in order."""
        return [judge_answer(prompt, text, self._config) for prompt, text in responses]

    def close(self) -> None:
        """Nothing was started."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def judge_answer(prompt: Prompt, text: str, config: QAConfig) -> Verdict:
    """The verdict on one response. No answer at all is decided: reward 0 with detail "no answer"."""
    gold = references(prompt)
    if not gold:
        return _unparsed(f"prompt {prompt.id!r} has no reference answer")
    answer = find_answer(text, config.extract)
    if answer is None:
        return Verdict(status="ok", reward=0.0, detail="no answer")
    choices = _choices(prompt)
    kind = config.kind
    if kind == "auto":
        plain = all(normalise(reference) in _PLAIN_POLARITY for reference in gold)
        kind = "choice" if choices else "yes_no" if plain else "span"
    if kind == "yes_no":
        return _yes_no(gold, answer)
    if kind == "choice":
        return _choice(gold, answer, choices)
    score = exact_match if config.metric == "exact" else f1
    return _decided(max(score(reference, answer, numbers=config.numbers) for reference in gold), answer)


def references(prompt: Prompt) -> list[str]:
    """The reference answers that are not blank: `answer`, then `meta["answers"]`."""
    aliases = prompt.meta.get("answers")
    if isinstance(aliases, Mapping):  # SQuAD's rows: the texts, and where each begins
        aliases = aliases.get("text")
    listed = aliases if isinstance(aliases, list | tuple) else [aliases]
    texts = (str(alias) for alias in listed if isinstance(alias, str | int | float))
    return list(dict.fromkeys(text for text in (prompt.answer, *texts) if text.strip()))


def normalise(text: str) -> str:
    """Lower case, plain Unicode forms and digits, without punctuation and English articles, single spaces.

    A text of nothing else (such as the option "A", an article) stays as it is but for case and spaces.
    """
    plain = plain_digits(unicodedata.normalize("NFKC", text)).lower()
    bare = "".join(c for c in plain if c not in _ASCII_PUNCTUATION and not unicodedata.category(c).startswith("P"))
    words = _ARTICLES.sub(" ", bare).split()
    return " ".join(words) or " ".join(bare.split()) or " ".join(plain.split())


def plain_digits(text: str) -> str:
    """Decimal digits of every script as 0 to 9, and the Arabic separators as `.` and `,`."""
    if text.isascii():
        return text
    separators = {"\u066b": ".", "\u066c": ","}
    return "".join(
        str(unicodedata.decimal(c)) if unicodedata.category(c) == "Nd" else separators.get(c, c) for c in text
    )


def exact_match(reference: str, answer: str, *, numbers: bool = True) -> float:
    """1 for equal texts after `normalise`, else 0. With `numbers`, two plain numbers are equal if their values are."""
    if numbers and (values := _both_numbers(reference, answer)):
        return float(values[0] == values[1])
    return float(normalise(reference) == normalise(answer))


def f1(reference: str, answer: str, *, numbers: bool = True) -> float:
    """F1 = 2 P R / (P + R) of the words in common, counted with repetition, after `normalise`.

    Yes and no, and plain numbers with `numbers`, are right or wrong as a whole (as in HotpotQA's script, arXiv:1809.09600).
    """
    if numbers and (values := _both_numbers(reference, answer)):
        return float(values[0] == values[1])
    gold_text, answer_text = normalise(reference), normalise(answer)
    if gold_text in ("yes", "no", "noanswer") or answer_text in ("yes", "no", "noanswer"):
        return float(gold_text == answer_text)
    gold, found = _WORD.findall(gold_text), _WORD.findall(answer_text)
    common = sum((Counter(gold) & Counter(found)).values())
    return 2 * common / (len(gold) + len(found)) if common else 0.0


def _both_numbers(reference: str, answer: str) -> tuple[Fraction, Fraction] | None:
    a, b = _number(reference), _number(answer)
    return None if a is None or b is None else (a, b)


def _number(text: str) -> Fraction | None:
    """The value of a plain number (sign, groups of three, decimals, a fraction, final full stop), or None."""
    plain = plain_digits(unicodedata.normalize("NFKC", text)).replace("\u2212", "-").strip().removesuffix(".")
    if not any(c.isdigit() for c in plain) or len(plain) > _NUMBER_CHARS or not _NUMBER.fullmatch(plain):
        return None
    return Fraction(plain.replace(",", ""))


def _yes_no(gold: Sequence[str], answer: str) -> Verdict:
    """The answer's first word says it, or its only word of that kind."""
    wanted = {_PLAIN_POLARITY.get(normalise(reference), _POLARITY.get(normalise(reference))) for reference in gold}
    if len(wanted) != 1 or None in wanted:
        return _unparsed(f"the reference {_shown(' / '.join(gold))} is neither yes nor no")
    words = normalise(answer).split()
    said = {_POLARITY[word] != _negated(words, i) for i, word in enumerate(words) if word in _POLARITY}
    if len(words) > 2 and words[0] in _POLARITY and words[1] in ("or", "and") and words[2] in _POLARITY:
        said = {_POLARITY[words[0]], _POLARITY[words[2]]}
    elif words and words[0] in _POLARITY:
        said = {_POLARITY[words[0]]}
    elif opening := _OPENING.match("".join(words)):
        said = {_POLARITY[opening.group()]}
    if len(said) == 2:
        return _unparsed(f"the answer {_shown(answer)} says both yes and no")
    return _decided(float(said == wanted), answer)


def _negated(words: Sequence[str], place: int) -> bool:
    """Whether a truth is denied: `not true`, `isn't really false`."""
    return words[place] in ("true", "false") and not _NEGATIONS.isdisjoint(words[max(0, place - 2) : place])


def _choices(prompt: Prompt) -> dict[str, str]:
    """Letter -> text of the options; empty where the prompt has none, or something else under that name."""
    given = prompt.meta.get("choices")
    if isinstance(given, Mapping) and isinstance(given.get("text"), list) and isinstance(given.get("label"), list):
        given = dict(zip(given["label"], given["text"], strict=False))  # ARC's rows
    if isinstance(given, list | tuple):
        given = dict(zip(string.ascii_uppercase, given, strict=False))
    if not isinstance(given, Mapping) or not all(isinstance(text, str | int | float) for text in given.values()):
        return {}
    return {str(letter).strip().upper(): str(text) for letter, text in given.items()}


def _choice(gold: Sequence[str], answer: str, choices: Mapping[str, str]) -> Verdict:
    """Options are compared as sets of letters; an answer or reference in words is the option with that text."""
    wanted = [_options(reference, choices) for reference in gold]
    if not any(wanted):
        return _unparsed(f"the reference {_shown(' / '.join(gold))} is none of the options")
    said = _options(answer, choices)
    if not said:
        return _unparsed(f"the answer {_shown(answer)} names none of the options")
    return _decided(float(any(said == letters for letters in wanted)), answer)


def _options(text: str, choices: Mapping[str, str]) -> frozenset[str]:
    """The letters that a text names; empty if it names none."""
    by_text = [letter for letter, option in choices.items() if exact_match(option, text)]
    if len(by_text) == 1:
        return frozenset(by_text)
    plain = unicodedata.normalize("NFKC", text).strip()
    if plain.upper() in choices:  # labels need not be letters
        return frozenset((plain.upper(),))
    match = _FIRST_LETTER.match(plain)
    if match is None:
        return frozenset()
    letters, end = {match.group(1).upper()}, match.end()
    while following := _NEXT_LETTER.match(plain, end):
        letters.add(following.group(1).upper())
        end = following.end()
    return frozenset(letters) if not choices or letters <= choices.keys() else frozenset()


def _decided(reward: float, answer: str) -> Verdict:
    return Verdict(status="ok", reward=reward, detail=f"answer: {_shown(answer)}")


def _unparsed(detail: str) -> Verdict:
    return Verdict(status="unparsed", reward=None, detail=detail)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "...")
