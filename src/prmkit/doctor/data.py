"""Checks of texts: answers that are given away, what stands twice, what stands in training and test, languages."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from prmkit.data.types import Prompt, Solution
from prmkit.doctor.finding import Finding, Item, percent, some
from prmkit.verify.answers import marked_answer, same_text

SHINGLE = 8
"""Tokens of an n-gram; shorter prompts are compared whole."""
NEAR = 0.6
"""Share of a prompt's n-grams found in one other prompt, from which on the two are called nearly the same."""
ANSWER_TAIL = re.compile(
    r"(?:^|\n)\s*(?:#+\s*(?:Answer\b|-?\d)|A:)|\\boxed\s*\{|\b(?:final )?answer is\b", re.IGNORECASE
)
HEADED_ANSWER = re.compile(r"(?:^|\n)\s*(?:#+\s*answer\b:?|A:)\s*(\S[^\n]*?)\s*$", re.IGNORECASE)
"""The last line of a step of PRM800K or of GSM8K's model solutions."""
WHOLE = 20
"""So long, as `normal` writes it, a solution of several steps must be to be looked for as a whole."""
REFERENCES = ("ground_truth_solution", "reference_solution", "gt_cot", "solution")
"""Names under which rows keep a reference solution."""
SCRIPTS = (
    "LATIN",
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "HANGUL",
    "CYRILLIC",
    "ARABIC",
    "THAI",
    "BENGALI",
    "TELUGU",
    "DEVANAGARI",
)


def check_data(items: Sequence[Item], test: Sequence[Item], separator: str) -> list[Finding]:
    """All checks of this module."""
    return [
        *leaked_answers(items),
        *leaked_solutions(items),
        *answer_tails(items),
        *duplicate_ids(items),
        *duplicate_solutions(items),
        *separators_in_steps(items, separator),
        *languages(items),
        *overlap(items, test),
    ]


def leaked_answers(items: Sequence[Item]) -> Iterator[Finding]:
    """Prompts that state their own answer as an answer: `The answer is 42`, `#### 42`, a box."""
    known = [(item, _answers(item.solution)) for item in items]
    leaked = [item.where for item, answers in known if answers and _states(prompt_text(item.solution.prompt), answers)]
    if leaked:
        yield Finding(
            severity="error",
            check="leak.answer_in_prompt",
            what=f"{percent(len(leaked), len(items))} prompts state their own answer; the model reads it there",
            where=some(leaked),
            how="remove the answer from the prompt",
        )
    elif not any(answers for _, answers in known):
        yield Finding(
            severity="note",
            check="leak.not_checked",
            what="whether prompts state their answer was not checked: no row gives a reference answer or that of a right "
            "solution, and no last step announces one",
            where=f"{len(items)} solutions",
            how="nothing to do if the prompts are questions alone; else give rows with their answers",
        )


def leaked_solutions(items: Sequence[Item]) -> Iterator[Finding]:
    """Prompts that hold the solution itself, or the reference solution."""
    leaked = [item.where for item in items if _holds_solution(item.solution)]
    if leaked:
        yield Finding(
            severity="error",
            check="leak.solution_in_prompt",
            what=f"{percent(len(leaked), len(items))} prompts hold steps of their own solution or the reference solution",
            where=some(leaked),
            how="keep the question alone in the prompt; check how prompt and solution were cut apart",
        )


def answer_tails(items: Sequence[Item]) -> Iterator[Finding]:
    """Last steps that announce the final answer: the model can tell a last step, and judge the answer instead of the step."""
    tails = [item.where for item in items if ANSWER_TAIL.search(item.solution.steps[-1])]
    if tails:
        yield Finding(
            severity="note",
            check="leak.answer_tail",
            what=f"{percent(len(tails), len(items))} solutions announce the final answer in the last step",
            where=some(tails),
            how="nothing to do; report accuracy on last steps apart, a model may be good at these alone",
        )


def duplicate_ids(items: Sequence[Item]) -> Iterator[Finding]:
    """Ids that two solutions of a file share: scores are joined to solutions by id, file by file."""
    places = defaultdict(list)
    for item in items:
        places[item.where.rpartition(":")[0], item.solution.id].append(item.where)
    twice = {key: wheres for key, wheres in places.items() if len(wheres) > 1}
    if twice:
        (_, key), wheres = next(iter(twice.items()))
        yield Finding(
            severity="error",
            check="data.duplicate_id",
            what=f"{len(twice)} ids stand more than once, such as {key!r}",
            where=some(wheres),
            how="give every solution an id of its own, or leave ids out",
        )


def duplicate_solutions(items: Sequence[Item]) -> Iterator[Finding]:
    """The same prompt and solution more than once, and whether the labels agree."""
    groups = defaultdict(list)
    for item in items:
        groups[normal(prompt_text(item.solution.prompt)), normal(item.solution.text)].append(item)
    twice = [group for group in groups.values() if len(group) > 1]
    if not twice:
        return
    surplus = sum(len(group) - 1 for group in twice)
    yield Finding(
        severity="warning",
        check="data.duplicate_solution",
        what=f"{percent(surplus, len(items))} solutions repeat an earlier one",
        where=some(group[1].where for group in twice),
        how="keep one of each; repeated solutions weigh more in training",
    )
    torn = [group for group in twice if len({(i.solution.labels, i.solution.outcome) for i in group}) > 1]
    if torn:
        yield Finding(
            severity="warning",
            check="data.contradiction",
            what=f"{len(torn)} solutions stand more than once with different labels",
            where=some(item.where for group in torn for item in group),
            how="decide which labels hold, or merge them into soft labels",
        )


def separators_in_steps(items: Sequence[Item], separator: str) -> Iterator[Finding]:
    """Steps that hold the separator: whoever splits the text finds more steps than there are labels. Empty: none is used."""
    found = [item.where for item in items if separator and any(separator in step for step in item.solution.steps)]
    if found:
        yield Finding(
            severity="warning",
            check="data.separator_in_step",
            what=f"{percent(len(found), len(items))} solutions have a step that holds the separator {separator!r}",
            where=some(found),
            how="choose a separator that no step holds, or split these steps; scorers that split text see other steps",
        )


def languages(items: Sequence[Item]) -> Iterator[Finding]:
    """Languages and scripts of the data; prompts answered in another script."""
    tags = Counter(item.solution.language or "untagged" for item in items)
    scripts = Counter(script(item.solution.text) for item in items)
    if len(tags) > 1 or len(scripts - Counter({"": len(items)})) > 1:
        tagged = ", ".join(f"{name} {count}" for name, count in tags.most_common(8))
        written = ", ".join(f"{(name or 'no letters').lower()} {count}" for name, count in scripts.most_common(8))
        yield Finding(
            severity="note",
            check="data.languages",
            what=f"languages: {tagged}; scripts: {written}",
            where=f"{len(items)} solutions",
            how="report each language apart; a single number follows the largest",
        )
    crossed = []
    for item in items:
        asked, said = script(prompt_text(item.solution.prompt)), script(item.solution.text)
        if asked and said and asked != said:
            crossed.append(item.where)
    if crossed:
        yield Finding(
            severity="warning",
            check="data.language_mix",
            what=f"{percent(len(crossed), len(items))} solutions are written in another script than their prompt",
            where=some(crossed),
            how="drop them or keep them on purpose: the model may learn that switching language is wrong or right",
        )


def overlap(train: Sequence[Item], test: Sequence[Item]) -> Iterator[Finding]:
    """Prompts of the test file that stand in the training file, the same or nearly so."""
    known: dict[str, str] = {}
    for item in train:
        known.setdefault(normal(prompt_text(item.solution.prompt)), item.where)
    asked: dict[str, str] = {}
    for item in test:
        asked.setdefault(normal(prompt_text(item.solution.prompt)), item.where)
    same = [f"{where} = {known[text]}" for text, where in asked.items() if text in known]
    if same:
        yield Finding(
            severity="error",
            check="data.test_in_train",
            what=f"{percent(len(same), len(asked))} prompts of the test file stand in the training file",
            where=some(same),
            how="remove them from one of the two; split by prompt, not by solution",
        )
    fresh = {text: where for text, where in asked.items() if text not in known}
    near = [f"{fresh[text]} ~ {known[other]}" for text, other in _near(fresh, known)]
    if near:
        yield Finding(
            severity="warning",
            check="data.test_near_train",
            what=f"{percent(len(near), len(asked))} prompts of the test file are nearly one of the training file: at least "
            f"{NEAR:.0%} of their {SHINGLE}-grams stand in it",
            where=some(near),
            how="look at these pairs; remove them from one file where they ask the same",
        )


def prompt_text(prompt: Prompt) -> str:
    """All that is asked, system turn included."""
    return "\n".join(message.content for message in prompt.messages)


def normal(text: str) -> str:
    """Text in one form: compatibility characters unified, no case, words and signs apart by one space."""
    return " ".join(re.findall(r"\w+|[^\w\s]", unicodedata.normalize("NFKC", text).casefold()))


def script(text: str) -> str:
    """The script that most letters are of, by the first word of their Unicode names; empty below 10 letters.

    LaTeX commands are Latin in every language, so they are left out.
    """
    letters = [char for char in re.sub(r"\\[A-Za-z]+", "", text)[:2000] if char.isalpha()]
    if len(letters) < 10:
        return ""
    names = Counter(unicodedata.name(char, "").split(" ")[0] for char in letters)
    # one ideograph says as much as several letters, and formulas are Latin in every language
    foreign = Counter({name: count for name, count in names.items() if name in SCRIPTS and name != "LATIN"})
    if foreign and foreign.total() > 0.2 * len(letters):
        name = foreign.most_common(1)[0][0]
        return "CJK" if name in ("HIRAGANA", "KATAKANA") else name
    return "LATIN"


def _answers(solution: Solution) -> set[str]:
    """The gold answer, the answer of a right solution, and what the last step announces as the answer."""
    last = solution.steps[-1]
    headed = HEADED_ANSWER.search(last)
    announced = marked_answer(last) or (headed[1] if headed else "")
    right = solution.answer if solution.outcome == 1 else None
    return {answer.strip() for answer in (solution.prompt.answer, right or "", announced)} - {""}


def _states(asked: str, answers: set[str]) -> bool:
    """Whether one of the answers stands after words or marks that announce one."""
    before = r"(?:####\s*|#\s*answer\s+|\\boxed\s*\{\s*|\banswer\s*(?:is\s*:?|:|=)\s*)"
    one_of = "|".join(re.escape(answer) for answer in sorted(answers))
    if re.search(before + rf"[$(\s]*(?:{one_of})(?![\w.]*\d|\w)", asked, re.IGNORECASE):
        return True
    stated = marked_answer(asked)
    return stated is not None and any(same_text(stated, answer) for answer in answers)


def _holds_solution(solution: Solution) -> bool:
    """Whether the prompt holds all steps, the last of several long ones, two long ones and half of them, or a long reference."""
    asked = normal(prompt_text(solution.prompt))
    if _holds_all(asked, [normal(step) for step in solution.steps]):
        return True
    steps = [text for step in solution.steps if len(text := normal(step)) >= 30]
    held = [text in asked for text in steps]
    if sum(held) >= 2 and 2 * sum(held) >= len(held):
        return True
    if len(held) > 1 and held[-1] and steps[-1] == normal(solution.steps[-1]):
        return True
    meta = {**solution.meta, **solution.prompt.meta}
    references = [normal(meta[key]) for key in REFERENCES if isinstance(meta.get(key), str)]
    return any(len(text) >= 60 and text in asked for text in references)


def _holds_all(asked: str, steps: Sequence[str]) -> bool:
    """Whether every one of several steps, short ones too, stands in the prompt, one after another."""
    if len(steps) < 2 or len(" ".join(steps)) < WHOLE:
        return False
    text, reached = f" {asked} ", 0
    for step in steps:
        found = text.find(f" {step} ", reached)
        if found < 0:
            return False
        reached = found + len(step) + 1
    return True


def _near(asked: dict[str, str], known: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Pairs (test prompt, training prompt) that share most n-grams; n-grams of many prompts are instructions, not questions."""
    index = defaultdict(list)
    for text in known:
        for gram in _grams(text):
            index[gram].append(text)
    common = max(10, len(known) // 100)
    for text in asked:
        grams = [gram for gram in _grams(text) if len(index.get(gram, ())) <= common]
        shared = Counter(other for gram in grams for other in index.get(gram, ()))
        if shared and shared.most_common(1)[0][1] >= NEAR * len(grams):
            yield text, shared.most_common(1)[0][0]


def _grams(text: str) -> set[tuple[str, ...]]:
    words = text.split(" ")
    return {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}
