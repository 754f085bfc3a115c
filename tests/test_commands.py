"""The commands as a user meets them: fine-tune, train, evaluate, report; and what is wrong is said in one line."""

from __future__ import annotations

import json
import shutil
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from rl_setup import At, Done, commands, micro_model, taught_model

from prmkit.cli.main import main

SMALL = ("--model.device=cpu", "--model.threads=1", "--task.chain=2", "--task.demonstrations=64")
RL = (*SMALL, "--steps=2", "--prompts-per-step=3", "--sampling.max-tokens=24", "--algorithm.filter.max-draws=2")
WIDE = ("--algorithm.filter.low=0", "--algorithm.filter.high=1")
"""Bounds that every group passes."""


def rl(run: Path, *more: str, preset: str = "rloo", at: At | None = None) -> Done:
    args = ("rl", f"--preset={preset}", *RL, f"--run-dir={run / 'run'}", f"--model.path={taught_model()}", *more)
    return commands().run(*args, cwd=run, watch=run, at=at)


def sft(run: Path, *more: str) -> Done:
    args = ("sft", *SMALL, "--steps=2", f"--run-dir={run / 'run'}", f"--model.path={micro_model()}", *more)
    return commands().run(*args, cwd=run)


def write(path: Path, *rows: str) -> str:
    path.write_text("".join(f"{row}\n" for row in rows))
    return str(path)


# ---------------------------------------------------------------------------------------------- what works


@pytest.mark.slow
def test_fine_tune_train_evaluate_report(tmp_path: Path) -> None:
    data = write(
        tmp_path / "own.jsonl",
        *(json.dumps({"prompt": f"{a}+{b}=?", "completion": f"#{a + b}"}) for a in range(1, 5) for b in range(1, 5)),
    )
    tuned = sft(tmp_path, f"--data={data}", f"--run-dir={tmp_path / 'sft'}", "--batch-size=4")
    assert tuned.code == 0, tuned.err
    model = tmp_path / "sft" / "checkpoints" / "step_000002" / "policy"
    assert f"model: {model}" in tuned.out.replace("\n", "")
    again = sft(tmp_path, f"--data={data}", f"--run-dir={tmp_path / 'sft'}", "--batch-size=4")
    assert "sft: already at step 2 of 2; nothing is trained. To go on, ask for more: --steps 4" in again.out
    config = write(
        tmp_path / "run.toml",
        'preset = "prime"',
        "steps = 2",
        "prompts_per_step = 3",
        f'run_dir = "{tmp_path / "rl"}"',
        f'report_to = ["tensorboard"]\n[model]\npath = "{model}"\ndevice = "cpu"\nthreads = 1',
        "[task]\nchain = 2",
        "[algorithm.filter]\nenabled = false",
        "[sampling]\nmax_tokens = 8",
    )
    trained = commands().run("rl", config, "--seed=7")
    assert trained.code == 0, trained.err
    written = tomllib.loads((tmp_path / "rl" / "config.toml").read_text())
    assert (written["seed"], written["preset"], written["algorithm"]["filter"]["enabled"]) == (7, "prime", False)
    assert {"prmkit", "torch", "transformers", "python", "commit"} <= set(written["run"])
    assert "rl: already at step 2 of 2; nothing is trained" in commands().run("rl", config, "--seed=7").out
    assert len((tmp_path / "rl" / "metrics.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "rl" / "report.html").stat().st_size > 10_000
    assert list((tmp_path / "rl" / "tensorboard").glob("events.*"))
    policy = tmp_path / "rl" / "checkpoints" / "step_000002" / "policy"
    out = tmp_path / "result.json"
    judged = commands().run(
        "eval", f"--model.path={policy}", *SMALL, "--prompts=4", "--sampling.max-tokens=8", f"--out={out}"
    )
    assert judged.code == 0, judged.err
    assert json.loads(out.read_text())["num_questions"] == 4
    reported = commands().run("report", str(tmp_path / "rl"), "--out", str(tmp_path / "page.html"))
    assert (reported.code, reported.out.strip()) == (0, str(tmp_path / "page.html"))


@pytest.mark.slow
def test_the_demo_runs_its_three_stages_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    args = (
        "demo",
        f"--run-dir={tmp_path}",
        "--threads=1",
        "--chain=2",
        "--sft-steps=200",
        "--rl-steps=2",
        "--prompts-per-step=4",
        "--eval-prompts=8",
    )
    first = commands().run(*args)
    assert first.code == 0, first.err
    for line in ("sampled accuracy", "greedy accuracy", "tokens sampled per second", "AUC of process rewards"):
        assert line in first.out
    report = tmp_path / "rl" / "report.html"
    assert f"report: {report}" in first.out
    metrics = (tmp_path / "rl" / "metrics.jsonl").read_bytes()
    again = commands().run(*args)
    assert again.code == 0, again.err
    assert (tmp_path / "rl" / "metrics.jsonl").read_bytes() == metrics


def test_a_shorter_run_than_its_checkpoints_names_a_model_that_is_there(tmp_path: Path) -> None:
    assert sft(tmp_path).code == 0
    done = sft(tmp_path, "--steps=1")
    assert done.code == 0, done.err
    named = Path(done.out.replace("\n", "").rpartition("model: ")[2].strip())
    assert (named / "config.json").is_file()


def test_logs_and_models_are_where_the_design_says(tmp_path: Path) -> None:
    done = rl(tmp_path, *WIDE, "--eval-every=1", "--eval-prompts=4", "--record-rollouts-every=1", preset="prime")
    assert done.code == 0, done.err
    run = tmp_path / "run"
    names = {str(p.relative_to(run)) for p in run.rglob("*")}
    last = "checkpoints/step_000002"
    assert {
        "config.toml",
        "metrics.jsonl",
        "timings.jsonl",
        "eval.jsonl",
        "report.html",
        "rollouts/step_000001.jsonl",
        f"{last}/trainer.pt",
        f"{last}/policy/model.safetensors",
        f"{last}/policy/tokenizer.json",
        f"{last}/prm/model.safetensors",
    } <= names
    rows = [json.loads(line) for line in (run / "rollouts" / "step_000002.jsonl").read_text().splitlines()]
    for row in rows:
        assert len(row["tokens"]) == len(row["process_rewards"]) == len(row["advantages"]) == len(row["step_of_token"])
        assert "".join(row["tokens"]) == row["text"]
        assert row["status"] == "ok"
        assert row["outcome"] in (0.0, 1.0)
    assert [json.loads(line)["step"] for line in (run / "eval.jsonl").read_text().splitlines()] == [0, 1, 2]


# ---------------------------------------------------------------------------------------------- wrong configuration


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "--algorithm.proces.coef=1",
            'unknown flag "--algorithm.proces.coef"; did you mean "--algorithm.process.coef"?',
        ),
        ("--stesp=1", 'unknown flag "--stesp"; did you mean "--steps"?'),
        ("--preset=prine", 'command line: unknown preset "prine"; did you mean "prime"?'),
        ("--algorithm.clip-low=2", "command line: algorithm.clip_low = 2.0 is out of range [0.0, 1.0]"),
        ("--algorithm.process.beta=nan", "command line: algorithm.process.beta = nan is out of range [1e-12, inf]"),
        (
            "--algorithm.filter.low=0.9",
            "command line: algorithm.filter: 0 <= low <= high <= 1 does not hold for 0.9, 0.8",
        ),
        (
            "--algorithm.group-size=1",
            'command line: algorithm.group_size = 1, but advantage "rloo" needs at least 2. Set algorithm.group_size = 4 or '
            'algorithm.advantage = "reinforce"',
        ),
        ("--policy.learning-rate=-1", "command line: policy.learning_rate = -1.0 is out of range [0, inf]"),
        ("--policy.learning-rate=nan", "command line: policy.learning_rate = nan is out of range [0, inf]"),
        ("--prm.learning-rate=nan", "command line: prm.learning_rate = nan is out of range [0, inf]"),
        ("--verifier.judge.url=x", "command line: verifier.judge.url = 'x' is no address of a server"),
        ("--policy.beta2=1.5", "command line: policy.beta2 = 1.5 is out of range [0, 1]"),
        ("--policy.max-grad-norm=-1", "command line: policy.max_grad_norm = -1.0 is out of range [0, inf]"),
        ("--policy.tokens-per-microbatch=0", "command line: policy.tokens_per_microbatch = 0 is out of range [1, inf]"),
        ("--model.threads=-1", "command line: model.threads = -1 is out of range [0, inf]"),
        ("--model.lora-rank=-1", "command line: model.lora_rank = -1 is out of range [0, inf]"),
        ("--task.limit=-1", "command line: task.limit = -1 is out of range [0, inf]"),
        ("--steps=0", "command line: steps = 0 is out of range; it must be at least 1"),
        ("--keep-rollouts=1", "command line: keep_rollouts = 1 is out of range; it must be at least 2"),
        ("--sampling.temperature=0", "command line: sampling.temperature = 0 makes all samples of a group equal"),
        ("--sampling.top-p=0", "command line: sampling.top_p must be in (0, 1], got 0.0"),
        ("--verifier.workers=0", "verifier.workers = 0, but at least 1 process is needed. Set verifier.workers = 1."),
        (
            "--verifier.timeout-s=0",
            "verifier.timeout_s = 0.0, but a deadline is a positive number of seconds, such as 5.",
        ),
        ("--task.chain=0", "task.chain = 0, but a problem needs at least one addition; set task.chain = 6"),
        ("--task.name=gsm8", 'task.name = "gsm8" is no task; did you mean "gsm8k"?'),
        ("--task.name=math", 'task.train and task.test are empty, but the task "math" reads its prompts'),
        ("--report-to=wandb", 'report_to names "wandb", which is not installed'),
    ],
)
def test_wrong_configuration(flag: str, message: str, tmp_path: Path) -> None:
    if "wandb" in flag and find_spec("wandb"):
        pytest.skip("it is installed here")
    done = rl(tmp_path, flag)
    assert done.code == 2, done.err
    assert done.complaint().startswith(f"error: {message}")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["stepps = 3"], 'run.toml: unknown key "stepps"; did you mean "steps"?'),
        (["[algorithm.process]", "cof = 1.0"], 'run.toml: unknown key "algorithm.process.cof"; did you mean "coef"?'),
        (
            ["[algorithm]", 'advantage = "rlo"'],
            'run.toml: algorithm.advantage = "rlo", but it must be one of "rloo", "grpo"',
        ),
        (["[algorithm]", "group_size = 1"], "run.toml: [algorithm] algorithm.group_size = 1, but advantage"),
        (["steps = "], "run.toml:1: not valid TOML"),
        (['steps = "3"'], 'run.toml: steps = "3" is a string, but it must be an integer'),
    ],
)
def test_a_wrong_file_names_itself_and_the_key(lines: list[str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "run.toml", *lines)
    done = commands().run("rl", path)
    assert done.code == 2
    assert done.complaint().startswith(f"error: {tmp_path}/{message}")


# ---------------------------------------------------------------------------------------------- wrong data

GOOD = '{"question": "1+1=?", "answer": "2"}'


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], ": the file is empty; it needs at least one line with a JSON object"),
        ([GOOD, "{'question'"], ":2: not JSON"),
        ([GOOD, "[1]"], ":2: a list, expected an object"),
        ([GOOD, GOOD, '{"question": "1+1=?"}'], ":3: field 'answer' is missing"),
        ([GOOD, '{"question": 3, "answer": "2"}'], ":2: field 'question' is a number, expected a string"),
        ([GOOD, "", GOOD], ":2: blank line between rows; remove it"),
    ],
)
def test_malformed_prompts_name_file_and_line(rows: list[str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", *rows)
    done = rl(tmp_path, "--task.name=math", f"--task.train={path}")
    assert done.code == 2
    assert done.complaint().startswith(f"error: {path}{message}")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], ": the file is empty"),
        (
            ['{"prompt": "1+1=?", "completion": "2"}', '{"prompt": "1"}'],
            ":2: expected the fields 'prompt' and 'completion'",
        ),
        (['{"messages": [{"role": "user", "content": "1"}]}'], ":1: the last turn is the user's"),
        (['{"messages": [{"role": "assistant", "content": "1"}]}'], ":1: no turn comes before the completion"),
        (['{"messages": [{"role": "usr", "content": "1"}]}'], ":1: turn 1 of 'messages' has role 'usr'"),
    ],
)
def test_malformed_demonstrations_name_file_and_line(rows: list[str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "demos.jsonl", *rows)
    done = sft(tmp_path, f"--data={path}")
    assert done.code == 2
    assert done.complaint().startswith(f"error: {path}{message}")


def test_missing_data(tmp_path: Path) -> None:
    done = rl(tmp_path, "--task.name=math", "--task.train=none.jsonl")
    assert done.code == 2
    assert done.complaint().startswith(
        f"error: none.jsonl: no such file; check the path (it is read relative to {tmp_path})"
    )
    path = write(tmp_path / "train.jsonl", GOOD)
    done = rl(tmp_path, "--task.name=math", f"--task.train={path}", "--eval-every=1")
    assert done.complaint() == "error: eval_every = 1, but task.test is empty; set task.test, or eval_every = 0"
    done = rl(tmp_path, "--task.name=math", f"--task.test={path}")
    assert done.complaint().startswith("error: task.train is empty: RL needs training prompts")


def test_demonstrations_that_are_too_long_or_unreadable(tmp_path: Path) -> None:
    done = sft(tmp_path, "--max-tokens=5")
    assert done.code == 2
    assert "demonstrations have more than the 5 tokens" in done.complaint()
    assert ": 'arithmetic/demonstrations/0/0' has " in done.complaint()
    rows = ['{"prompt": "1+1=?", "completion": "2"}', '{"prompt": "1+1=?", "completion": "1+1=2"}']
    path = write(tmp_path / "long.jsonl", *rows)
    done = sft(tmp_path, f"--data={path}", "--max-tokens=8", "--too-long=leave_out", "--steps=1")
    assert done.code == 0
    assert "1 of 2 demonstrations are longer than max_tokens and were left out" in done.out
    path = write(tmp_path / "demos.jsonl", '{"prompt": "1+1=?", "completion": "zwei"}')
    done = sft(tmp_path, f"--data={path}")
    assert done.code == 2
    assert "cannot encode the completion 'zwei'" in done.complaint()


# ---------------------------------------------------------------------------------------------- wrong models


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    done = rl(tmp_path, "--model.path=/none/at/all")
    assert done.code == 1
    assert done.complaint().startswith("error: /none/at/all: no such model folder; give a local folder")


def test_a_model_without_chat_template(tmp_path: Path) -> None:
    model = shutil.copytree(taught_model(), tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    done = rl(tmp_path, f"--model.path={model}")
    assert done.code == 1
    assert done.complaint().startswith(f"error: {model}: the tokenizer has no chat template; add chat_template.jinja")


def test_a_model_without_end_token(tmp_path: Path) -> None:
    model = shutil.copytree(taught_model(), tmp_path / "model")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    done = rl(tmp_path, f"--model.path={model}")
    assert done.code == 1
    assert done.complaint().startswith(f"error: {model}: the tokenizer has no end token")


def test_a_prompt_longer_than_the_context(tmp_path: Path) -> None:
    done = rl(tmp_path, f"--model.path={micro_model(0, 16)}", "--sampling.max-tokens=12")
    assert done.code == 1
    assert "has 7 tokens; with max_tokens = 12 it exceeds the model's context of 16." in done.complaint()
    assert done.complaint().endswith("Drop the prompt or lower max_tokens")


# ---------------------------------------------------------------------------------------------- wrong verifiers

JUDGES = """
import os, time

def raises(prompt, text):
    raise RuntimeError("boom")

def dies(prompt, text):
    os._exit(3)

def hangs(prompt, text):
    time.sleep(1000)

def says_nan(prompt, text):
    return float("nan")

def says_two(prompt, text):
    return 2.0

def half_broken(prompt, text):
    if len(text) % 2:
        raise RuntimeError("boom")
    return float(sum(map(ord, text)) // 2 % 2)
"""


@pytest.mark.parametrize(
    ("name", "verdicts"),
    [
        ("raises", "error 4 (the first undecided one: RuntimeError: boom (judges.py:5))"),
        ("dies", "error 4 (the first undecided one: the worker process died: exited with code 3)"),
        ("hangs", "timeout 4 (the first undecided one: no verdict after 0.3 s; the worker was killed)"),
        ("says_nan", "error 4 (the first undecided one: the verifier function returned nan, not in [0, 1])"),
        (
            "says_two",
            "error 4 (the first undecided one: the verifier function returned 2.0, not in [0, 1]; if that is meant, state "
            "verifier.function_range)",
        ),
    ],
)
def test_a_verifier_that_fails_is_named_and_never_a_reward(name: str, verdicts: str, tmp_path: Path) -> None:
    (tmp_path / "judges.py").write_text(JUDGES)
    timeout_s = 0.3 if name == "hangs" else 60.0
    flags = (f"--verifier.function=judges:{name}", f"--verifier.timeout-s={timeout_s}", "--prompts-per-step=1")
    done = rl(tmp_path, *flags, *WIDE, "--algorithm.filter.max-draws=1")
    assert done.code == 1
    assert f"accuracy unknown, 0% cut at max_tokens, verdicts {verdicts}. If many are undecided" in done.complaint()


def test_what_a_verifier_cannot_decide_is_masked(tmp_path: Path) -> None:
    (tmp_path / "judges.py").write_text(JUDGES)
    flags = ("--verifier.function=judges:half_broken", f"--model.path={micro_model()}", "--record-rollouts-every=1")
    done = rl(tmp_path, *flags, *WIDE)
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert 0.1 < metrics["verdict/error"] < 0.9
    rows = [json.loads(line) for line in (tmp_path / "run" / "rollouts" / "step_000001.jsonl").read_text().splitlines()]
    assert all(len(row["text"]) % 2 == 0 for row in rows)
    assert 0 < len(rows) < 12


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("judges:none", "AttributeError: module 'judges' has no attribute 'none'"),
        ("nothing:none", "ModuleNotFoundError: No module named 'nothing'"),
        ("judges", "ValueError: there is no ':' between a module and a function"),
    ],
)
def test_a_verifier_that_cannot_be_loaded(function: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "judges.py").write_text(JUDGES)
    done = rl(tmp_path, f"--verifier.function={function}")
    assert done.code == 2
    assert done.complaint().startswith(f"error: verifier.function = '{function}' cannot be loaded: {reason}")


# ---------------------------------------------------------------------------------------------- wrong in the middle


def test_every_group_filtered_away(tmp_path: Path) -> None:
    done = rl(tmp_path, f"--model.path={micro_model()}")
    assert done.code == 1
    start = (
        "error: no group of 6 sampled in 2 draws passed the filter (mean accuracy within [0.2, 0.8]): accuracy 0.000, "
    )
    assert done.complaint().startswith(start)
    assert "start from a better SFT model or easier prompts" in done.complaint()


@pytest.mark.parametrize("role", ["policy", "prm"])
def test_a_loss_that_is_not_finite_stops_the_run(role: str, tmp_path: Path) -> None:
    """At a rate that no weights survive, the second mini-batch of the first step finds out."""
    flags = (*WIDE, "--algorithm.num-minibatches=2", "--algorithm.prm-minibatches=2")
    done = rl(tmp_path, *flags, f"--{role}.learning-rate=1e30", preset="prime_paper")
    assert done.code == 1
    assert done.complaint().startswith(f"error: {role}: the ")
    assert " at optimizer step 2, which was not taken. Lower the learning rate" in done.complaint()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_fine_tuning_stops_at_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    done = sft(tmp_path, "--optimizer.learning-rate=1e30", "--steps=5")
    assert done.code == 1
    assert done.complaint().startswith("error: policy: the ")
    assert " at optimizer step 2, which was not taken. Lower the learning rate" in done.complaint()


def test_a_run_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    done = rl(tmp_path)
    assert done.code == 1
    assert done.complaint().startswith(f"error: the run folder could not be written in {tmp_path / 'run'}: ")


def test_the_same_messages_in_this_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`main` returns the exit code; it neither exits nor leaves a signal handler behind."""
    assert main(["rl", "--steps=0"]) == 2
    assert capsys.readouterr().err == "error: command line: steps = 0 is out of range; it must be at least 1\n"
