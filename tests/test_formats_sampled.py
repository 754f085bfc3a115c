"""What prmkit itself has sampled, as solutions: scored, chosen from as a pool, converted and trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rl_setup import make_roles, micro_model, one_step, rl_config
from score_setup import lines

from prmkit.cli.main import main
from prmkit.data.formats import detect_format, read_pools, read_solutions, write_solutions
from prmkit.data.jsonl import write_jsonl
from prmkit.data.types import Solution
from prmkit.errors import DataError
from prmkit.rl.metrics import rollout_rows
from prmkit.rl.presets import PRIME
from prmkit.tasks.arithmetic import SPLIT, first_error_step


def member(text: str, status: str = "ok", reward: float | None = None, **more: Any) -> dict[str, Any]:
    known = {"num_tokens": 1, "finish": "stop", "extracted": None, "detail": ""}
    return {"text": text, "status": status, "reward": reward, **known, **more}


ASKED = {
    "messages": [{"role": "system", "content": "Think."}, {"role": "user", "content": "2+3*4?"}],
    "answer": "14",
    "task": "gsm8k",
    "language": "de",
}
RECORD = {
    "id": "mgsm/de/1",
    "prompt": ASKED,
    "sampled": [
        member("3*4=12\n\n2+12=14", "ok", 1.0, extracted="14"),
        member("20", "ok", 0.0, extracted="20"),
        member("It is 1/", "unparsed"),
        member("[1, 2", "timeout"),
        member("def f(", "error"),
        member("", "not_sampled", finish="error"),
        member("\n", "ok", 0.0),
    ],
    "greedy": member("14", "ok", 1.0),
}
ROLLOUT = {
    "step": 3,
    "prompt_id": "q1",
    "prompt": "2+3*4?",
    "messages": [{"role": "system", "content": "Think."}, {"role": "user", "content": "2+3*4?"}],
    "answer": "14",
    "text": "3*4=12\n\n2+12=15\n\n15",
    "tokens": ["3*4=12\n\n", "2+12=15", "\n\n", "15", ""],
    "token_ends": [8, 15, 17, 19, 19],
    "step_of_token": [0, 1, 1, 2, 2],
    "outcome": 0.0,
    "status": "ok",
    "detail": "",
    "finish": "stop",
    "process_rewards": [0.1, 0.2, 0.3, 0.4, 0.5],
    "advantages": [0.1, 0.2, 0.3, 0.4, 0.5],
    "first_error_step": 1,
}


def read(path: Path, *rows: dict[str, Any], **options: Any) -> list[Solution]:
    write_jsonl(path, rows)
    return read_solutions(path, **options)


def test_the_responses_of_a_question_are_a_pool_with_the_verdicts_that_were_made(tmp_path: Path) -> None:
    """What could not be judged has no outcome; a response that was not sampled, and one without a step, are none."""
    found = read(tmp_path / "a.jsonl", RECORD)
    assert [(item.id, item.outcome, item.answer) for item in found] == [
        ("mgsm/de/1/0", 1.0, "14"),
        ("mgsm/de/1/1", 0.0, "20"),
        ("mgsm/de/1/2", None, None),
        ("mgsm/de/1/3", None, None),
        ("mgsm/de/1/4", None, None),
    ]
    assert (found[0].steps, found[0].separator) == (("3*4=12", "2+12=14"), "\n\n")
    prompt = found[0].prompt
    assert (prompt.id, prompt.answer, prompt.task, found[0].language) == ("mgsm/de/1", "14", "gsm8k", "de")
    assert [(message.role, message.content) for message in prompt.messages] == [
        ("system", "Think."),
        ("user", "2+3*4?"),
    ]
    (pool,) = read_pools(tmp_path / "a.jsonl")
    assert len(pool.members) == 5
    (whole, *_) = read(tmp_path / "a.jsonl", RECORD, split="whole")
    assert whole.steps == ("3*4=12\n\n2+12=14",)


def test_a_rollout_has_the_steps_that_the_run_rewarded(tmp_path: Path) -> None:
    (found,) = read(tmp_path / "a.jsonl", ROLLOUT)
    assert (found.id, found.prompt.id, found.outcome) == ("a.jsonl:1", "q1", 0.0)
    assert (found.steps, found.separator) == (("3*4=12", "2+12=15", "15"), "\n\n")
    assert found.text == ROLLOUT["text"]
    assert found.labels == (1.0, 0.0, None)
    assert found.meta == {"step": 3, "status": "ok", "detail": "", "finish": "stop"}
    assert [message.role for message in found.prompt.messages] == ["system", "user"]


def changed(**fields: Any) -> dict[str, Any]:
    return {**ROLLOUT, **fields}


@pytest.mark.parametrize(
    ("row", "steps", "separator", "labels", "outcome"),
    [
        (changed(first_error_step=-1, outcome=1.0), ("3*4=12", "2+12=15", "15"), "\n\n", (1.0,) * 3, 1.0),
        (
            changed(first_error_step=None, status="timeout", outcome=None),
            ("3*4=12", "2+12=15", "15"),
            "\n\n",
            None,
            None,
        ),
        # steps that are cut at other places than white space hold what ends them
        (
            changed(text="1+1=2;2+1=3#3", token_ends=[6, 12, 13, 13], step_of_token=[0, 1, 2, 2]),
            ("1+1=2;", "2+1=3#", "3"),
            "",
            (1.0, 0.0, None),
            0.0,
        ),
        # white space alone is no step
        (
            changed(text="\n\nab\n\n\n\ncd", token_ends=[2, 6, 8, 10], step_of_token=[0, 1, 2, 3], first_error_step=3),
            ("\n\nab", "cd"),
            "\n\n\n\n",
            (1.0, 0.0),
            0.0,
        ),
        # a step of no token, such as one within a token of the next, is no step of the rewards
        (
            changed(text="a\nb\nc", token_ends=[3, 5], step_of_token=[0, 2], first_error_step=1),
            ("a\nb", "\nc"),
            "",
            None,
            0.0,
        ),
    ],
    ids=["right", "undecided", "equations", "blank", "straddled"],
)
def test_steps_of_rollouts(
    row: dict[str, Any], steps: Any, separator: str, labels: Any, outcome: float | None, tmp_path: Path
) -> None:
    (found,) = read(tmp_path / "a.jsonl", row)
    assert (found.steps, found.separator, found.labels, found.outcome) == (steps, separator, labels, outcome)
    assert found.text == row["text"]


def test_rollouts_of_before_have_the_last_turn_alone(tmp_path: Path) -> None:
    old = {key: value for key, value in ROLLOUT.items() if key != "messages"}
    (found,) = read(tmp_path / "a.jsonl", old)
    assert [(message.role, message.content) for message in found.prompt.messages] == [("user", "2+3*4?")]
    (lines_of,) = read(tmp_path / "a.jsonl", old, split="line")
    assert lines_of.labels is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({key: value for key, value in RECORD.items() if key != "prompt"}, "run the same `prmkit eval` once more"),
        ({**RECORD, "sampled": [{**member("a"), "status": "maybe"}]}, r"sampled\[0\]: field 'status' is \"maybe\""),
        ({**RECORD, "sampled": [member("a", "ok", 2.0)]}, r"sampled\[0\]: field 'reward' is 2.0"),
        (changed(step_of_token=[0, 1, 1, 2]), "do not describe one text"),
        (changed(token_ends=[8, 15, 17, 19, 99]), "do not describe one text"),
        (changed(first_error_step="1"), "'first_error_step' is \"1\""),
    ],
)
def test_damaged_lines_are_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"a\.jsonl:1: .*{message}"):
        read(tmp_path / "a.jsonl", row)


@pytest.mark.parametrize("name", ["prmkit_eval", "prmkit_rollouts"])
def test_what_prmkit_sampled_is_only_read(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read(tmp_path / "a.jsonl", ROLLOUT)
    with pytest.raises(DataError, match="is only read"):
        write_solutions(tmp_path / "b.jsonl", found, name)
    words = ["data", "convert", f"--source={tmp_path / 'a.jsonl'}", f"--target={tmp_path / 'b.jsonl'}"]
    assert main([*words, f"--target-format={name}"]) == 2
    assert f'target_format = "{name}" is what prmkit' in capsys.readouterr().err
    assert not (tmp_path / "b.jsonl").exists()


def test_the_result_of_an_evaluation_names_its_record(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{\n "accuracy": 1\n}\n')
    write_jsonl(tmp_path / "r.items.jsonl", [RECORD])
    with pytest.raises(DataError, match=r"r\.items\.jsonl beside it is the record of that evaluation: give that"):
        detect_format(tmp_path / "r.json")


def use(source: Path, format: str, folder: Path) -> list[Solution]:
    """Score the file, choose from it, convert it, train on it; what it holds."""
    found = read_solutions(source)
    assert detect_format(source) == format
    prm, scores = micro_model(1), folder / "scores.jsonl"
    asked = ["--prm.family=log_prob", "--device=cpu"]
    assert main(["score", f"--model={prm}", f"--source={source}", f"--out={scores}", *asked]) == 0
    assert [(row["id"], row["outcome"], len(row["rewards"])) for row in lines(scores)] == [
        (item.id, item.outcome, len(item.steps)) for item in found
    ]
    pools = read_pools(source)
    words = [f"--scored=prm={scores}", f"--pools=own={source}", f"--out={folder / 'card'}", "--n-values", "2"]
    assert main(["eval", "prm", *words, "--bootstrap=40", "--draws=8"]) == 0
    card = json.loads((folder / "card" / "card.json").read_text())
    assert card["best_of_n"]["own"]["pools"] == len(pools)
    data = folder / "implicit.jsonl"
    assert main(["data", "convert", f"--source={source}", f"--target={data}", "--target-format=unpaired"]) == 0
    assert [row["label"] for row in lines(data)] == [item.outcome == 1.0 for item in found]
    for given in (data, source):
        run = [f"--run-dir={folder / f'run-{given.stem}'}", "--steps=1", "--model.device=cpu", "--model.threads=1"]
        assert main(["train", "implicit", f"--data={given}", f"--model.path={micro_model(0)}", *run]) == 0
    return found


def test_rollouts_of_a_run_are_scored_chosen_from_and_trained_on(tmp_path: Path) -> None:
    config = rl_config(PRIME)
    result = one_step(config, make_roles(config))
    source = tmp_path / "step_000001.jsonl"
    rows = list(rollout_rows(result, 1, first_error_step))
    write_jsonl(source, rows)
    found = use(source, "prmkit_rollouts", tmp_path)
    for item, row in zip(found, rows, strict=True):
        assert item.text == row["text"]
        assert len(item.steps) == len(SPLIT(row["text"]))
        wrong = item.first_error
        assert (-1 if wrong is None else wrong) == row["first_error_step"]


def test_the_record_of_an_evaluation_is_scored_chosen_from_and_trained_on(tmp_path: Path) -> None:
    words = [f"--model.path={micro_model(0)}", "--model.device=cpu", "--task.chain=2", "--sampling.max-tokens=12"]
    more = ["--prompts=3", "--samples=3", f"--out={tmp_path / 'r.json'}"]
    assert main(["eval", *words, *more]) == 0
    source = tmp_path / "r.items.jsonl"
    found = use(source, "prmkit_eval", tmp_path)
    assert {item.prompt.id.partition("/")[0] for item in found} == {"arithmetic"}
    asked = {question["prompt_id"]: question for question in json.loads((tmp_path / "r.json").read_text())["questions"]}
    for item in found:
        question, _, number = item.id.rpartition("/")
        member = asked[question]["sampled"][int(number)]
        assert (item.text, item.outcome) == (member["text"], member["reward"])
        assert item.prompt.messages[-1].content == asked[question]["question"]

    rows = lines(source)
    write_jsonl(source, [{key: value for key, value in row.items() if key != "prompt"} for row in rows])
    with pytest.raises(DataError, match="run the same `prmkit eval` once more"):
        read_solutions(source)
    assert main(["eval", *words, *more]) == 0  # samples nothing: all is on record
    assert lines(source) == rows
