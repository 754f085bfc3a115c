"""The whole card, and `prmkit eval prm` with real models and real rows."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prm_judge import Echo, pool, scored, solution
from prm_models import language_model
from rich.console import Console

from prmkit.cli.eval_prm import _matrix_json
from prmkit.cli.eval_prm_tables import tables
from prmkit.cli.main import main
from prmkit.data.formats import write_solutions
from prmkit.data.prm_spec import PRMSpec, write_spec
from prmkit.data.types import Group, Message, Prompt, RewardKind, Solution
from prmkit.errors import ConfigError, DataError
from prmkit.evaluate.prm import EvalPRMConfig, EvalSet, ModelScores, build_card, pool_set, score_solutions
from prmkit.evaluate.prm.languages import language_matrices
from prmkit.report.card import render_card

EXCERPTS = Path(__file__).parent / "data" / "formats"
FAST: dict[str, Any] = {"bootstrap": 40, "draws": 20}


def labelled(num: int, seed: int, language: str = "en") -> list[Solution]:
    """Right steps score about 0.7, wrong ones about 0.3; half of the solutions have an error."""
    rng = random.Random(seed)
    rows = []
    for k in range(num):
        length = rng.randint(1, 5)
        wrong = rng.randrange(length) if k % 2 else length
        labels = [float(step < wrong) for step in range(length)]
        scores = [round(min(max(rng.gauss(0.3 + 0.4 * label, 0.2), 0.01), 0.99), 3) for label in labels]
        question = f"{language}/{seed}/{k}"
        rows.append(solution(scores, labels, question=question, name=question, language=language))
    return rows


def pools(num: int, language: str = "") -> list[Group[Solution]]:
    rng = random.Random(num)
    return [
        pool(
            f"{language}pool{k}",
            [
                (round(rng.random(), 2), float(right), "1" if right else str(rng.randrange(2, 4)))
                for right in (1, 0, 0, 1)
            ],
            language=language,
        )
        for k in range(num)
    ]


def judged(name: str, sets: Sequence[EvalSet], kind: RewardKind = "probability", **fields: Any) -> ModelScores:
    return ModelScores(
        name=name, kind=kind, scored={one.name: score_solutions(Echo(kind), one.solutions) for one in sets}, **fields
    )


def config(**fields: Any) -> EvalPRMConfig:
    base: dict[str, Any] = {
        "scored": ("a=a.jsonl",),
        "process_bench": ("easy=1", "hard=2"),
        "prm_bench": ("bench=3",),
        "pools": ("pool=4",),
        **FAST,
    }
    return EvalPRMConfig(**{**base, **fields})


def sets(num: int = 30) -> list[EvalSet]:
    return [
        EvalSet(name="easy", task="process_bench", solutions=labelled(num, 1)),
        EvalSet(name="hard", task="process_bench", solutions=labelled(num, 2)),
        EvalSet(name="bench", task="prm_bench", solutions=labelled(num, 3)),
        pool_set("pool", pools(5), {}),
    ]


def test_a_threshold_chosen_on_one_set_is_never_fitted_again() -> None:
    data = sets()
    chosen = build_card(config(threshold="easy"), data, [judged("a", data)])
    other = [data[0], EvalSet(name="hard", task="process_bench", solutions=labelled(40, 9)), *data[2:]]
    again = build_card(config(threshold="easy"), other, [judged("a", other)])
    assert again["thresholds"] == chosen["thresholds"]
    threshold = chosen["thresholds"]["a"]["value"]
    assert (threshold["chosen_on"], threshold["objective"]) == ("easy", "first-error F1")
    found = chosen["first_errors"]["sets"]
    assert found["easy"]["a"]["value"]["f1"]["mean"] == pytest.approx(threshold["best"])
    assert [found[name]["a"]["value"]["in_sample"] for name in ("easy", "hard")] == [True, False]
    # the average without the set of the choice is that of the other alone
    held_out = chosen["first_errors"]["held_out_mean"]["a"]["value"]["mean"]
    assert held_out == pytest.approx(found["hard"]["a"]["value"]["f1"]["mean"])
    both = [found[name]["a"]["value"]["f1"]["mean"] for name in ("easy", "hard")]
    assert chosen["first_errors"]["mean"]["a"]["value"]["mean"] == pytest.approx(sum(both) / 2)


def test_a_threshold_on_a_prm_bench_set_maximises_its_score() -> None:
    data = sets()
    card = build_card(config(threshold="bench"), data, [judged("a", data)])
    threshold = card["thresholds"]["a"]["value"]
    assert threshold["objective"] == "PRMScore"
    assert card["steps"]["bench"]["a"]["value"]["total"]["prm_score"]["mean"] == pytest.approx(threshold["best"])


def test_a_threshold_cannot_be_chosen_where_nothing_is_wrong() -> None:
    data = sets()
    data[0] = EvalSet(name="easy", task="process_bench", solutions=[solution([0.5], [1.0])])
    with pytest.raises(DataError, match=r'threshold = "easy": no threshold is best for a there'):
        build_card(config(threshold="easy"), data, [judged("a", data)])


def test_log_ratios_are_read_in_two_ways_each_with_its_threshold() -> None:
    data = sets()
    card = build_card(config(threshold="easy"), data, [judged("a", data, "log_ratio")])
    assert list(card["thresholds"]["a"]) == ["cumulative", "single"]
    assert list(card["first_errors"]["sets"]["hard"]["a"]) == ["cumulative", "single"]
    given = build_card(config(threshold="0.5", temperature=200.0), data, [judged("a", data, "log_ratio")])
    assert given["thresholds"]["a"]["single"]["score"] == 0.0


def test_a_card_is_json_whatever_the_data_lack() -> None:
    data = [EvalSet(name="easy", task="process_bench", solutions=[solution([0.5], [1.0])]), pool_set("pool", [], {})]
    card = build_card(config(process_bench=("easy=1",), prm_bench=(), threshold="0"), data, [judged("a", data)])
    assert card["first_errors"]["sets"]["easy"]["a"]["value"]["f1"] is None
    assert card["best_of_n"]["pool"]["pools"] == 0
    json.dumps(card, allow_nan=False)


def test_the_same_seed_gives_the_same_card() -> None:
    data = sets(12)
    first, second = (build_card(config(seed=5), data, [judged("a", data), judged("b", data)]) for _ in range(2))
    assert first == second
    other = build_card(config(seed=6), data, [judged("a", data), judged("b", data)])
    assert other["first_errors"]["sets"]["easy"]["a"] != first["first_errors"]["sets"]["easy"]["a"]


def test_equal_models_have_no_difference_and_better_ones_have() -> None:
    data = sets()
    worse = {
        one.name: scored([solution([0.5] * len(s.steps), s.labels, question=s.id) for s in one.solutions])
        for one in data
    }
    models = [judged("a", data), judged("b", data), ModelScores(name="flat", kind="probability", scored=worse)]
    rows = {(r["metric"], r["set"], *r["models"]): r for r in build_card(config(), data, models)["paired"]}
    same = rows["PRMScore", "bench", "a", "b"]
    assert (same["difference"]["mean"], same["p_value"]) == (0.0, 1.0)
    gain = rows["first-error F1", "mean of splits", "a", "flat"]
    assert gain["difference"]["low"] > 0
    assert gain["p_value"] == pytest.approx(1 / 41)  # the least that 40 permutations can say
    assert ("best of 4: best min", "pool", "a", "majority") in rows


def test_differences_on_the_set_of_the_choice_are_marked_and_the_mean_is_also_given_without_it() -> None:
    third = EvalSet(name="third", task="process_bench", solutions=labelled(30, 4))
    data = [*sets()[:2], third, *sets()[2:]]
    flat = {
        one.name: scored([solution([0.5] * len(s.steps), s.labels, question=s.id) for s in one.solutions])
        for one in data
    }
    models = [judged("a", data), ModelScores(name="flat", kind="probability", scored=flat)]
    splits = ("easy=1", "hard=2", "third=5")

    def paired(threshold: str) -> dict[tuple[str, str], dict[str, Any]]:
        found = build_card(config(threshold=threshold, process_bench=splits), data, models)["paired"]
        return {(row["metric"], row["set"]): row for row in found if row["models"] == ["a", "flat"]}

    rows = paired("easy")
    marked = {where for where, row in rows.items() if row["in_sample"]}
    assert marked == {("first-error F1", "easy"), ("first-error F1", "mean of splits")}
    held_out = rows["first-error F1", "mean of splits not chosen on"]
    alone = [rows["first-error F1", name]["difference"]["mean"] for name in ("hard", "third")]
    assert held_out["difference"]["mean"] == pytest.approx(sum(alone) / 2)
    assert {where for where, row in paired("bench").items() if row["in_sample"]} == {("PRMScore", "bench")}
    given = paired("0.5")
    assert not any(row["in_sample"] for row in given.values())
    assert ("first-error F1", "mean of splits not chosen on") not in given


def test_what_one_model_cannot_score_nobody_may_choose() -> None:
    data = sets()
    half = judged("half", data)
    rows = list(half.scored["pool"])
    lost = [score_solutions(Echo(), [Solution(id="x", prompt=r.solution.prompt, steps=("?",))])[0] for r in rows[:1]]
    half = ModelScores(name="half", kind="probability", scored={**half.scored, "pool": [*lost, *rows[1:]]})
    none = ModelScores(
        name="none",
        kind="probability",
        scored={
            **half.scored,
            "pool": [
                lost[0].__class__(index=k, solution=r.solution, rewards=lost[0].rewards) for k, r in enumerate(rows)
            ],
        },
    )
    card = build_card(config(), data, [judged("a", data), half, none])
    found = card["best_of_n"]["pool"]
    assert (found["unscored"], found["too_small"], found["pools"]) == (1, 1, 4)  # a pool of 3 has no best of 4
    assert list(found["models"]) == ["a", "half"]  # a model without any score has no number, least of all 0
    assert found["models"]["a"] == found["models"]["half"]
    assert card["unscored"]["half"]["pool"]["reasons"] == {"a step is ?": 1}
    failed = build_card(config(unscored="failed_pick"), data, [judged("a", data), half])["best_of_n"]["pool"]
    assert failed["pools"] == 5
    assert failed["models"]["half"]["best min"]["1"]["mean"] < failed["models"]["a"]["best min"]["1"]["mean"]


def test_controls_are_asked_for_best_of_n_only() -> None:
    data = sets()
    control = ModelScores(name="lm", kind="log_ratio", control=True, scored={"pool": judged("lm", data).scored["pool"]})
    card = build_card(config(), data, [judged("a", data), control])
    assert list(card["best_of_n"]["pool"]["models"]) == ["a", "lm"]
    assert list(card["first_errors"]["sets"]["easy"]) == ["a"]


def test_numbers_by_language() -> None:
    data = [
        EvalSet(name="easy", task="process_bench", solutions=[*labelled(20, 1, "de"), *labelled(20, 2, "sw")]),
        pool_set("pool", [*pools(3, "de"), *pools(4, "sw")], {}),
    ]
    card = build_card(config(process_bench=("easy=1",), prm_bench=(), languages=("all",)), data, [judged("de", data)])
    metrics = card["languages"]["de"]["metrics"]
    assert set(metrics) == {"first-error F1", "best of 4: best min", "best of 4: vote min", "best of 4: majority"}
    assert {language: found["num"] for language, found in metrics["best of 4: majority"].items()} == {"de": 3, "sw": 4}
    alone = [EvalSet(name="easy", task="process_bench", solutions=labelled(20, 2, "sw"))]
    expected = build_card(config(process_bench=("easy=1",), prm_bench=(), pools=()), alone, [judged("de", alone)])
    assert metrics["first-error F1"]["sw"] == {
        **expected["first_errors"]["sets"]["easy"]["de"]["value"]["f1"],
        "in_sample": False,
    }
    with pytest.raises(DataError, match="languages names fr, but the data hold de, sw"):
        build_card(config(process_bench=("easy=1",), prm_bench=(), languages=("fr",)), data, [judged("de", data)])


def test_the_set_of_the_choice_is_in_no_number_by_language_that_others_give() -> None:
    """German is in two sets, Swahili only in the one that the threshold is chosen on, so its number is marked."""
    tuned = EvalSet(name="tuned", task="process_bench", solutions=[*labelled(20, 1, "de"), *labelled(20, 2, "sw")])
    held_out = EvalSet(name="other", task="process_bench", solutions=labelled(20, 3, "de"))
    data = [tuned, held_out]
    settings = config(
        process_bench=("tuned=1", "other=2"), prm_bench=(), pools=(), languages=("all",), threshold="tuned"
    )
    card = build_card(settings, data, [judged("a", data)])
    found = card["languages"]["a"]["metrics"]["first-error F1"]
    alone = card["first_errors"]["sets"]["other"]["a"]["value"]["f1"]
    assert found["de"] == {**alone, "in_sample": False}
    assert (found["sw"]["in_sample"], found["sw"]["num"]) == (True, 20)
    assert card["first_errors"]["mean"]["a"]["value"]["in_sample"]
    assert not card["first_errors"]["held_out_mean"]["a"]["value"]["in_sample"]
    (matrix,) = language_matrices([card])
    assert [cell and cell.in_sample for cell in matrix.cells[0]] == [False, True]
    assert matrix.in_sample_means == ("unknown",)
    shown = render_card({**card, "versions": {"prmkit": "0"}, "commit": "c", "matrices": [_matrix_json(matrix)]})
    row = shown[shown.index('<table class="matrix">') :].split("</tr>")[1]
    assert row.count("in-sample") == 2  # Swahili, and the mean with it
    console = Console(width=200, file=io.StringIO(), markup=False, emoji=False)
    console.print(
        next(table for table in tables({**card, "matrices": [_matrix_json(matrix)]}) if "language" in str(table.title))
    )
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "*: in-sample" in text
    assert text.count(f"{found['sw']['mean']:.3f}*") == 1
    assert f"{found['de']['mean']:.3f}*" not in text


@pytest.mark.parametrize(
    ("rows", "task", "message"),
    [
        ([([0.9], [1.0])] * 3, "process_bench", "of its 3 solutions 3 have a score (3 without a wrong step, 0 with one, 0 whose"),
        ([([0.1], [0.0])] * 2, "process_bench", "(0 without a wrong step, 2 with one, 0 whose labels do not say)"),
        ([([0.9], [1.0]), ([0.9, 0.9], [1.0, None])], "process_bench", "(1 without a wrong step, 0 with one, 1 whose labels"),
        (
            [(["?"], [0.0]), (["?"], [0.0]), ([0.9], [1.0])],
            "process_bench",
            "of its 3 solutions 1 have a score (1 without a wrong step, 0 with one, 0 whose labels do not say), 2 have none, the "
            "first 's0': a step is ?; choose another set, or give a number",
        ),
        (
            [([0.9, 0.8], [1.0, 1.0])],
            "prm_bench",
            "right and wrong steps with scores: of its 1 solutions 1 have a score (2 right steps, 0 wrong steps)",
        ),
    ],
)  # fmt: skip
def test_a_set_that_no_threshold_can_be_chosen_on_says_what_it_holds(rows: Any, task: Any, message: str) -> None:
    solutions = [solution(scores, labels, name=f"s{k}", question=f"q{k}") for k, (scores, labels) in enumerate(rows)]
    data = [EvalSet(name="easy", task=task, solutions=solutions)]
    named: dict[str, Any] = {"process_bench": (), "prm_bench": (), "pools": (), task: ("easy=1",)}
    with pytest.raises(DataError) as caught:
        build_card(config(**named, threshold="easy"), data, [judged("a", data)])
    assert 'threshold = "easy": no threshold is best for a there' in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"threshold": "gsm8k"},
            r'threshold = "gsm8k" is neither a number in \[0, 1\] nor a set .*known: easy, hard, bench',
        ),
        ({"threshold": "1.5"}, r'threshold = "1.5" is neither'),
        ({"threshold": "pool"}, r'threshold = "pool" is neither'),
        ({"fit_temperature": "pool"}, r'fit_temperature = "pool" is no set with step labels'),
        ({"temperature": 0.0}, "temperature = 0.0, but log-ratios are divided by it"),
        ({"bootstrap": 10}, "bootstrap = 10, but it must be at least 40"),
        ({"n_values": (0, 2)}, r"n_values = \[0, 2\], but best of N needs N of at least 1"),
        ({"aggregates": ()}, "aggregates is empty"),
        ({"models": ("a=x",)}, 'name "a" twice'),
        ({"pools": ("easy=x",)}, 'name "easy" twice'),
        ({"pools": ("en/hard=x",)}, '"en/hard" is no name of a set: its scores are written to a file of that name'),
        ({"models": ("x=",)}, r'models holds "x=", expected name=path'),
        ({"overrides": ("a.beta",)}, r'overrides holds "a.beta", expected name.key=value'),
        ({"overrides": ("b.beta=1",)}, 'overrides names "b", which is no model here; known: a'),
        ({"overrides": ("a.bta=1",)}, 'there is no key "bta"; known: family'),
        ({"overrides": ("a.beta=x",)}, "but beta is a number"),
        ({"overrides": ("a.family=tree",)}, "but family must be one of auto, token_classification"),
        ({"trained_on": ("b=de",)}, 'trained_on names "b"'),
    ],
)
def test_configurations_that_cannot_run(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**fields)


def test_overrides_become_those_of_scoring() -> None:
    found = config(overrides=("a.beta=0.05", "a.labels=+,-", "a.prompt=plain")).overrides_of["a"]
    assert (found.beta, found.labels, found.prompt) == (0.05, ("+", "-"), "plain")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("policy", "reference", "lm")):
        language_model(root / name, seed=seed)
    write_spec(root / "policy", PRMSpec(family="implicit", reference="../reference", beta=0.05))
    write_spec(root / "lm", PRMSpec(family="log_prob"))
    return root


def short_data(folder: Path) -> tuple[Path, Path]:
    """Labelled solutions and pools that fit the small models' context."""

    def make(k: int, member: int, name: str) -> Solution:
        right = [True] * (k % 3) + [(k // 2 + member) % 2 == 0]
        return Solution(
            id=f"{name}{k}-{member}",
            prompt=Prompt(id=f"p{k}", messages=(Message(role="user", content=f"{k}+{k}?"),), answer=str(2 * k)),
            steps=tuple(f"step {step} of {member}" for step in range(len(right))),
            labels=tuple(map(float, right)),
            outcome=float(all(right)),
            answer=str(2 * k if all(right) else member),
            language=("de", "en")[k % 2],
        )

    labelled, pools = folder / "labelled.jsonl", folder / "pools.jsonl"
    write_solutions(labelled, [make(k, 0, "s") for k in range(12)])
    write_solutions(pools, [make(k, member, "pool") for k in range(6) for member in range(4)])
    return labelled, pools


def command(models: Path, folder: Path, *more: str) -> list[str]:
    labelled, pools = short_data(folder)
    return [
        "eval",
        "prm",
        f"--models=prm={models / 'policy'}",
        f"--controls=lm={models / 'lm'}",
        f"--process-bench=small={labelled}",
        f"--pools=pool={pools}",
        f"--out={folder / 'card'}",
        "--bootstrap=40",
        "--device=cpu",
        *more,
    ]


def test_the_command_makes_a_card_and_makes_it_again_from_its_scores(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(models, tmp_path, "--threshold=small", "--languages=all", "--trained-on=prm=de+en")) == 0
    card = json.loads((tmp_path / "card" / "card.json").read_text())
    assert card["models"]["prm"]["spec"]["beta"] == 0.05
    assert card["models"]["lm"]["control"]
    assert card["sets"]["small"]["solutions"] == 12
    assert len(card["sets"]["small"]["sha256"]) == 64
    assert card["versions"]["prmkit"]
    assert {matrix["metric"] for matrix in card["matrices"]} >= {"first-error F1", "best of 4: best min"}
    assert "Best of N: pool, 6 problems" in capsys.readouterr().out
    scores = tmp_path / "card" / "scores"
    assert sorted(p.relative_to(scores).as_posix() for p in scores.rglob("*.jsonl")) == [
        "lm/pool.jsonl",
        "prm/pool.jsonl",
        "prm/small.jsonl",
    ]
    labelled, pools = short_data(tmp_path)
    words = [f"--scored=prm={scores / 'prm'}", f"--process-bench=small={labelled}", f"--pools=pool={pools}"]
    assert main(["eval", "prm", *words, "--threshold=small", "--bootstrap=40", f"--out={tmp_path / 'again'}"]) == 0
    again = json.loads((tmp_path / "again" / "card.json").read_text())
    for section in ("thresholds", "first_errors", "calibration"):
        assert again[section] == card[section]
    assert again["best_of_n"]["pool"]["models"]["prm"] == card["best_of_n"]["pool"]["models"]["prm"]


def test_a_second_card_joins_the_language_matrix(models: Path, tmp_path: Path) -> None:
    assert main(command(models, tmp_path, "--languages=all", "--trained-on=prm=de")) == 0
    labelled, _ = short_data(tmp_path)
    words = ["eval", "prm", f"--scored=en={tmp_path / 'card' / 'scores' / 'prm'}", f"--process-bench=small={labelled}"]
    more = [
        "--languages=all",
        f"--cards={tmp_path / 'card' / 'card.json'}",
        "--bootstrap=40",
        f"--out={tmp_path / 'b'}",
    ]
    assert main([*words, *more]) == 0
    matrix = json.loads((tmp_path / "b" / "card.json").read_text())["matrices"][0]
    assert (matrix["metric"], matrix["rows"], matrix["columns"]) == ("first-error F1", ["en", "prm"], ["de", "en"])
    assert matrix["trained_on"] == [["en"], ["de"]]
    assert set(matrix["means"]) == {"mono", "cross"}


def test_a_missing_control_is_said_before_anything_is_scored(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(models, tmp_path, f"--controls=lm={tmp_path / 'gone'}")
    assert main(words) == 1
    assert "gone: holds no model, there is no such folder" in capsys.readouterr().err
    assert not (tmp_path / "card").exists()


def test_rows_that_cannot_be_read_are_counted_and_the_others_evaluated(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(models, tmp_path)
    labelled = tmp_path / "labelled.jsonl"
    rows = labelled.read_text().splitlines()
    labelled.write_text("\n".join([*rows[:3], "not JSON", *rows[3:]]) + "\n")
    assert main(words) == 0
    assert "labelled.jsonl: 1 rows cannot be read. The first: " in capsys.readouterr().out
    one = json.loads((tmp_path / "card" / "card.json").read_text())["sets"]["small"]
    assert (one["solutions"], one["unreadable"]) == (12, 1)
    assert "labelled.jsonl:4" in one["unreadable_reasons"][0]


def test_real_rows_of_prmbench_and_mr_gsm8k(models: Path, tmp_path: Path) -> None:
    language_model(tmp_path / "long", context=8192)
    shape = json.loads((tmp_path / "long" / "config.json").read_text())
    (tmp_path / "long" / "config.json").write_text(json.dumps({**shape, "max_position_embeddings": 8192}))
    write_spec(tmp_path / "long", PRMSpec(family="log_prob"))
    words = [f"--models={tmp_path / 'long'}", f"--prm-bench=bench={EXCERPTS / 'prmbench.jsonl'}", "--unmodified=true"]
    more = [f"--process-bench=mr={EXCERPTS / 'mr_gsm8k.jsonl'}", f"--steps=prm800k={EXCERPTS / 'prm800k_steps.jsonl'}"]
    assert main(["eval", "prm", *words, *more, "--bootstrap=40", "--device=cpu", f"--out={tmp_path / 'card'}"]) == 0
    card = json.loads((tmp_path / "card" / "card.json").read_text())
    found = card["steps"]["bench"]["long"]["single"]
    controls = found["categories"]["correct"]
    assert controls["num_wrong"] == 0
    others = [part for name, part in found["categories"].items() if name != "correct"]
    assert found["total"]["num_right"] == sum(part["num_right"] for part in others)
    assert found["total"]["num_wrong"] == sum(part["num_wrong"] for part in others) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out="], "out is not set"),
        (["--models"], "there is no model; name one"),
        (["--process-bench", "--pools"], "there is nothing to evaluate on"),
        (["--pools"], "controls = lm, but controls choose among the solutions of pools alone, and there are none"),
        (["--process-bench=small=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--cards=nowhere.json"], "nowhere.json: no card of prmkit"),
        (["--models=prm=nowhere"], "nowhere: holds no model"),
        (["--overrides=prm.family=token_classification"], "policy"),
    ],
)
def test_bad_command_lines_name_what_to_change(
    words: list[str], message: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(models, tmp_path, *words)) in (1, 2)
    assert message in capsys.readouterr().err


def test_solutions_without_labels_are_refused_for_step_numbers(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.jsonl"
    write_solutions(
        bare,
        [
            Solution(
                id="a", prompt=Prompt(id="p", messages=(Message(role="user", content="q"),), answer=""), steps=("x",)
            )
        ],
    )
    assert main(command(models, tmp_path, f"--steps=bare={bare}")) == 2
    assert "no step has a label, so steps cannot use it" in capsys.readouterr().err


def test_the_configuration_and_the_numbers_load_no_torch() -> None:
    code = "import sys, prmkit.evaluate.prm; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
