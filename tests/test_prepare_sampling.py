"""Steps of `prmkit data prepare` that ask models: what is kept, what is counted, what is asked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from prepare_setup import Speaker, kept, reasons, record, verifier

from prmkit.curate.answers import check_answers
from prmkit.curate.choices import choices_step
from prmkit.curate.config import AnswerConfig, ChoicesConfig, DifficultyConfig, VerifiabilityConfig
from prmkit.curate.difficulty import difficulty_step
from prmkit.curate.opening import model_rewrite
from prmkit.curate.record import Outcome, Record
from prmkit.curate.sampling import Model, ResponseCache
from prmkit.curate.verifiability import verifiability_step
from prmkit.data.types import Message, Prompt, Verdict
from prmkit.errors import ConfigError, SamplingError

RIGHT, WRONG, LOST = r"\boxed{5}", r"\boxed{6}", None
Said = Mapping[str, Sequence[str | None]]


def model(speaker: Speaker, name: str = "m") -> Model:
    return Model(sampler=speaker, identity={"name": name}, name=name)


class Marks:
    """Judges by what the text says of itself."""

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        known = {"right": 1.0, "half": 0.5, "wrong": 0.0}
        return [
            Verdict(status="ok", reward=known[text])
            if text in known
            else Verdict(status="timeout", reward=None, detail="late")
            for _, text in responses
        ]


def asked_difficulty(
    folder: Path, said: Said, *, judge: Any = None, speaker: Speaker | None = None, **options: Any
) -> Outcome:
    config = DifficultyConfig(**{"samples": 4, "model": DifficultyConfig().model, "template": "plain", **options})
    speaker = speaker or Speaker(said)
    step = difficulty_step(
        config,
        lambda: model(speaker),
        ResponseCache(folder / "cache.sqlite"),
        judge or Marks(),
        seed=0,
        on_progress=lambda done, total: None,
    )
    return step([record(question) for question in said])


def test_accuracy_decides_and_bounds_are_included(tmp_path: Path) -> None:
    said = {
        "none": ["wrong"],
        "one in four": ["right", "wrong", "wrong", "wrong"],
        "half": ["half"],
        "three in four": ["right", "right", "wrong", "right"],
        "all": ["right"],
    }
    outcome = asked_difficulty(tmp_path, said, bounds=(0.25, 0.75))
    assert kept(outcome) == ["one in four", "half", "three in four"]
    assert reasons(outcome) == {"none": "too_hard", "all": "too_easy"}
    assert [r.found["difficulty"]["accuracy"] for r in outcome.kept] == [0.25, 0.5, 0.75]
    accuracies = {f"accuracy {value:.3f}": 1 for value in (0.0, 0.25, 0.5, 0.75, 1.0)}
    assert {name: number for name, number in outcome.notes.items() if number} == accuracies
    assert len(outcome.samples) == 20


def test_undecided_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    said = {
        "half late": ["right", "late", "late", "wrong"],
        "late": ["right", "late", "late", "late"],
        "never": ["late"],
    }
    outcome = asked_difficulty(tmp_path, said)
    assert [r.found["difficulty"] for r in outcome.kept] == [{"accuracy": 0.5, "decided": 2, "samples": 4}]
    assert reasons(outcome) == {"late": "undecided", "never": "undecided"}
    assert outcome.dropped[0].detail == "1 of 4 responses were decided; one is timeout: late"
    assert reasons(asked_difficulty(tmp_path, said, decided=0.25, bounds=(0, 1))) == {"never": "undecided"}


def test_a_model_that_fails_stops_the_step_unless_it_may_drop(tmp_path: Path) -> None:
    said: Said = {"fine": ["right", "wrong"], "lost": ["right", LOST]}
    speaker = Speaker(said)
    with pytest.raises(SamplingError) as caught:
        asked_difficulty(tmp_path, said, speaker=speaker)
    for part in (
        "1 of 2 questions were not sampled",
        "q.jsonl:lost",
        "the server is away",
        'difficulty.failures = "drop"',
    ):
        assert part in str(caught.value)
    outcome = asked_difficulty(tmp_path, said, speaker=speaker, failures="drop")
    assert (kept(outcome), reasons(outcome)) == (["fine"], {"lost": "not_sampled"})
    assert speaker.asked == ["fine", "lost", "lost"], "what was had is not asked again, what was not is"


def test_a_step_that_was_cut_off_asks_only_for_the_rest(tmp_path: Path) -> None:
    said = {f"question {i}": ["right", "wrong", "right", "wrong" if i % 2 else "right"] for i in range(7)}
    whole = asked_difficulty(tmp_path / "whole", said, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        asked_difficulty(tmp_path / "cut", said, batch_size=2, speaker=Speaker(said, cut_after=5))
    again = Speaker(said)
    assert asked_difficulty(tmp_path / "cut", said, batch_size=2, speaker=again) == whole
    assert again.asked == ["question 4", "question 5", "question 6"], "the batch that was cut is asked as a whole"
    third = Speaker(said)
    asked_difficulty(tmp_path / "cut", said, speaker=third, bounds=(0, 1))
    assert third.asked == [], "other bounds need no new responses"


@pytest.mark.parametrize("change", [{"samples": 3}, {"template": "boxed"}])
def test_other_sampling_finds_nothing_of_the_cache(tmp_path: Path, change: dict[str, Any]) -> None:
    said = {"q": ["right", "wrong"]}
    asked_difficulty(tmp_path, said)
    speaker = Speaker(said)
    asked_difficulty(tmp_path, said, speaker=speaker, **change)
    assert len(speaker.asked) == 1


def test_equal_questions_are_asked_once(tmp_path: Path) -> None:
    speaker = Speaker({"q": ["right", "wrong"]})
    step = difficulty_step(
        DifficultyConfig(template="plain"),
        lambda: model(speaker),
        ResponseCache(tmp_path / "c.sqlite"),
        Marks(),
        seed=0,
        on_progress=lambda done, total: None,
    )
    assert kept(step([record("q", name="a"), record("q", name="b")])) == ["a", "b"]
    assert len(speaker.asked) == 1


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, and they are long enough to be no database\n" * 40)
    with pytest.raises(ConfigError, match="cannot be used"):
        ResponseCache(path)
    assert path.read_text().startswith("these are my notes")


def agreed(folder: Path, *said: Said, answer: str = "5", judge: Any = None, **options: Any) -> Outcome:
    """One record for each question of the first model; each further mapping is another model."""
    config = VerifiabilityConfig(samples=max(len(v) for s in said for v in s.values()), **options)
    makers = [lambda k=k, s=s: model(Speaker(s), f"model {k}") for k, s in enumerate(said)]
    step = verifiability_step(
        config,
        makers,
        ResponseCache(folder / "cache.sqlite"),
        judge or verifier(),
        seed=0,
        on_progress=lambda done, total: None,
    )
    return step([record(question, answer) for question in said[0]])


def test_models_agree_among_themselves_and_with_the_reference(tmp_path: Path) -> None:
    said: Said = {
        "agree": [RIGHT, RIGHT, RIGHT, WRONG, "I do not know"],
        "split": [RIGHT, RIGHT, WRONG, WRONG, r"\boxed{7}"],
        "refuted": [WRONG, WRONG, WRONG, RIGHT, RIGHT],
        "one says no": [RIGHT, RIGHT, RIGHT, RIGHT, r"\boxed{\text{No solution}}"],
        "silent": ["I do not know"] * 5,
    }
    outcome = agreed(tmp_path, said)
    assert kept(outcome) == ["agree"]
    assert reasons(outcome) == {
        "split": "no_agreement",
        "refuted": "reference_disagrees",
        "one says no": "unsolvable",
        "silent": "no_answers",
    }
    found = outcome.kept[0].found["verifiability"]
    assert found == {"majority": "5", "agreement": 0.6, "unsolvable": 0.0, "samples": 5}
    assert reasons(agreed(tmp_path, said, unsolvable=0.2, reference=False, agreement=0.4)) == {"silent": "no_answers"}


def test_answers_are_one_where_the_verifier_says_so(tmp_path: Path) -> None:
    said: Said = {
        "q": [r"\boxed{0.5}", r"\boxed{\frac{1}{2}}", r"\boxed{x}", r"\boxed{\frac{\sqrt{4}}{4}}", r"\boxed{1/2}"]
    }
    (found,) = agreed(tmp_path, said, answer=r"\frac12").kept
    assert found.found["verifiability"]["agreement"] == 4 / 5


def test_several_models_vote_together(tmp_path: Path) -> None:
    outcome = agreed(tmp_path, {"q": [RIGHT, RIGHT]}, {"q": [WRONG, RIGHT]}, agreement=0.75)
    assert [r.found["verifiability"]["agreement"] for r in outcome.kept] == [0.75]
    assert [line["model"] for line in outcome.samples] == ["model 0", "model 0", "model 1", "model 1"]
    assert reasons(agreed(tmp_path, {"q": [RIGHT, RIGHT]}, {"q": [WRONG, RIGHT]}, agreement=0.8)) == {
        "q": "no_agreement"
    }


def test_where_no_solution_is_the_reference_it_is_an_answer(tmp_path: Path) -> None:
    said: Said = {"q": [r"\boxed{No solution}", r"\boxed{No solution.}", RIGHT]}
    assert kept(agreed(tmp_path, said, answer="no solution", reference=False)) == ["q"]


def test_a_majority_that_cannot_be_judged_is_not_called_different(tmp_path: Path) -> None:
    class Undecided:
        def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
            return [Verdict(status="error", reward=None, detail="broke") for _ in responses]

    outcome = agreed(tmp_path, {"q": [RIGHT, RIGHT]}, judge=Undecided())
    assert reasons(outcome) == {"q": "reference_undecided"}


CHOICE = "What is $2+3$? (A) 4 (B) 5 (C) 6"
YES = "Convertible: yes\nQuestion:\nWork out $2+3$.\nSolution:\nIt is \\boxed{5}."


def rewritten(
    folder: Path, reply: str | None, *, question: str = CHOICE, failures: Any = "stop"
) -> tuple[Outcome, Speaker]:
    config = ChoicesConfig(by="model", failures=failures)
    speaker = Speaker({"": [reply]})
    rewrite = model_rewrite(
        config,
        lambda: model(speaker),
        ResponseCache(folder / "c.sqlite"),
        verifier(),
        seed=0,
        on_progress=lambda done, total: None,
    )

    def check(records: Sequence[Record]) -> Any:
        return check_answers(records, AnswerConfig(), verifier())

    return choices_step(config, check, rewrite)([record(question, "B", name="q", solution="2+3=5, so B.")]), speaker


@pytest.mark.parametrize(
    "reply", [YES, "**Convertible:** Yes\n\n**Question:** Work out $2+3$.\n\n**Solution:** It is \\boxed{5}."]
)
def test_a_model_opens_a_question(tmp_path: Path, reply: str) -> None:
    outcome, speaker = rewritten(tmp_path, reply)
    (found,) = outcome.kept
    assert found.question.strip("* ") == "Work out $2+3$."
    assert found.answer == "5"
    assert found.solution is not None
    assert found.solution.endswith(r"It is \boxed{5}.")
    assert found.found["choices"]["was"]["question"] == CHOICE
    assert CHOICE in speaker.asked[0]
    assert "2+3=5, so B." in speaker.asked[0]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Convertible: no", "needs_options"),
        ("Sure! Here it is: what is 2+3?", "reply_unreadable"),
        ("Convertible: yes", "reply_unreadable"),
        (YES.replace("{5}", "{6}"), "answer_changed"),
        (YES.replace(r"\boxed{5}", "five"), "reply_without_answer"),
        (YES.replace("Work out", "Which of the following is"), "needs_options"),
    ],
)
def test_what_a_model_cannot_open_is_dropped(tmp_path: Path, reply: str, reason: str) -> None:
    assert reasons(rewritten(tmp_path, reply)[0]) == {"q": reason}


def test_a_question_that_names_its_options_is_not_shown_to_the_model(tmp_path: Path) -> None:
    outcome, speaker = rewritten(tmp_path, YES, question="Which of the following is prime? (A) 4 (B) 5 (C) 6")
    assert reasons(outcome) == {"q": "needs_options"}
    assert speaker.asked == []


def test_a_model_that_fails_to_open(tmp_path: Path) -> None:
    with pytest.raises(SamplingError, match='step "choices": 1 of 1 questions'):
        rewritten(tmp_path, None)
    assert reasons(rewritten(tmp_path, None, failures="drop")[0]) == {"q": "not_sampled"}


def test_a_rows_own_turns_are_asked(tmp_path: Path) -> None:
    speaker = Speaker({"my words": ["right", "wrong"]})
    step = difficulty_step(
        DifficultyConfig(),
        lambda: model(speaker),
        ResponseCache(tmp_path / "c.sqlite"),
        Marks(),
        seed=0,
        on_progress=lambda done, total: None,
    )
    step([record("q", messages=(Message(role="user", content="my words: q"),))])
    assert speaker.asked == ["my words: q"]
