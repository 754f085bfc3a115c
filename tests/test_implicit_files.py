"""What the offline implicit PRM learns from: files, pairs, balance, languages, lengths; and what is refused, and how."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from implicit_setup import config, solved, written
from rl_setup import micro_model, scratch

from prmkit.cli.main import main
from prmkit.data.types import Pair, Solution
from prmkit.engines.local.implicit import implicit_models
from prmkit.errors import ConfigError, DataError, ModelError
from prmkit.models.load import load_tokenizer
from prmkit.train.implicit import HeldOut, num_steps
from prmkit.train.implicit_config import ImplicitConfig
from prmkit.train.implicit_data import (
    Items,
    encode_pairs,
    encode_responses,
    implicit_batch,
    mismatched_rows,
    sibling_pairs,
    summary,
)
from prmkit.train.implicit_files import encode_rows, read_rows

TOKENIZER: Any = load_tokenizer(micro_model())
SOLUTIONS = solved(8, 4)


def text_of(ids: Any) -> str:
    return str(TOKENIZER.decode(ids))


def outcomes(data: Items) -> Counter[float]:
    return Counter(data.responses[row].outcome for item in data.items for row in item)


def of_prompt(solutions: list[Solution]) -> Counter[str]:
    return Counter(s.prompt.id for s in solutions)


@dataclass(frozen=True)
class Read:
    data: Items
    validation: Items | None
    separator: str


def read_files(settings: ImplicitConfig, tokenizer: Any, max_tokens: int) -> Read:
    """As the command does."""
    rows = read_rows(settings)
    return Read(*encode_rows(settings, rows, tokenizer, max_tokens), rows.separator)


@pytest.fixture
def data_file(tmp_path: Path) -> str:
    return written(tmp_path / "data.jsonl", SOLUTIONS)


def test_a_response_is_the_whole_text_and_its_end_token() -> None:
    data = encode_responses(TOKENIZER, SOLUTIONS[:1], 64, "error")
    (response,) = data.responses
    assert text_of(response.prompt_token_ids) == SOLUTIONS[0].prompt.messages[0].content
    assert text_of(response.token_ids) == SOLUTIONS[0].text + "<eos>"
    assert response.outcome == SOLUTIONS[0].outcome
    batch = implicit_batch(data, [0])
    assert text_of(batch.token_BT[batch.response_mask_BT]) == SOLUTIONS[0].text + "<eos>"


def test_equal_responses_are_one_and_stay_as_many_items(data_file: str) -> None:
    files = read_files(config(data=(data_file,)), TOKENIZER, 128)
    texts = {(s.prompt.id, s.text) for s in SOLUTIONS}
    assert len(texts) < len(SOLUTIONS)
    assert (len(files.data.items), len(files.data.responses)) == (len(SOLUTIONS), len(texts))
    assert outcomes(files.data) == Counter(s.outcome for s in SOLUTIONS)
    assert files.separator == ""


def test_weights_of_a_batch_by_hand() -> None:
    """Items right, wrong, soft 1/4, right again: of 4, so 2/4, 1/4 on the wrong side, and 1/16 beside 3/16."""
    a, b, c = (replace(s, id=k, outcome=v) for s, k, v in zip(SOLUTIONS[::4], "abc", (1.0, 0.0, 0.25), strict=False))
    data = encode_responses(TOKENIZER, [a, b, c, a], 64, "error")
    batch = implicit_batch(data, [0, 1, 2, 3])
    assert batch.right_B.tolist() == [2 / 4, 0, 1 / 16]
    assert batch.wrong_B.tolist() == [0, 1 / 4, 3 / 16]
    weighted = implicit_batch(data, [0, 1, 2, 3], side_weights=(2.0, 10.0))
    assert weighted.right_B.tolist() == [4 / 4, 0, 2 / 16]
    assert weighted.wrong_B.tolist() == [0, 10 / 4, 30 / 16]


def test_pairs_share_rows() -> None:
    """Two pairs with one chosen response: three rows, and the chosen one weighs twice."""
    a, b, c = (replace(SOLUTIONS[0], id=k, steps=("1+1=2#", k)) for k in "123")
    data = encode_pairs(TOKENIZER, [Pair(chosen=a, rejected=b), Pair(chosen=a, rejected=c)], 64, "error")
    assert data.items == [(0, 1), (0, 2)]
    assert [r.outcome for r in data.responses] == [1.0, 0.0, 0.0]
    batch = implicit_batch(data, [1, 0])
    assert batch.response_B.tolist() == [0, 2, 1]
    assert batch.items == ((0, 1), (0, 2))
    assert batch.right_B.tolist() == [1, 0, 0]
    assert batch.wrong_B.tolist() == [0, 1 / 2, 1 / 2]


@pytest.mark.parametrize(("pairs", "loss"), [("all", "dpo"), ("one_to_one", "nca"), ("all", "kto_even")])
def test_pairs_from_outcomes(pairs: Any, loss: Any, data_file: str) -> None:
    data = read_files(config(data=(data_file,), loss=loss, pairs=pairs), TOKENIZER, 128).data
    right, wrong = of_prompt([s for s in SOLUTIONS if s.outcome]), of_prompt([s for s in SOLUTIONS if not s.outcome])
    count = {"all": lambda p: right[p] * wrong[p], "one_to_one": lambda p: min(right[p], wrong[p])}[pairs]
    assert len(data.items) == sum(count(prompt) for prompt in of_prompt(SOLUTIONS))
    for chosen, rejected in data.items:
        assert (data.responses[chosen].outcome, data.responses[rejected].outcome) == (1.0, 0.0)
        assert data.responses[chosen].prompt == data.responses[rejected].prompt


@pytest.mark.parametrize("balance", ["dataset", "instruction"])
def test_balance_evens_out_the_classes(balance: Any, data_file: str) -> None:
    data = read_files(config(data=(data_file,), balance=balance), TOKENIZER, 128).data
    right, wrong = of_prompt([s for s in SOLUTIONS if s.outcome]), of_prompt([s for s in SOLUTIONS if not s.outcome])
    assert right.total() != wrong.total()
    even = min(right.total(), wrong.total())
    if balance == "instruction":
        even = sum(min(right[p], wrong[p]) for p in of_prompt(SOLUTIONS))
    assert outcomes(data) == {1.0: even, 0.0: even}


def preference_file(path: Path) -> str:
    rows = [
        {"prompt": "1+1=?", "chosen": "1+1=2#2", "rejected": "1+1=3#3"},
        {"prompt": "2+2=?", "chosen": "2+2=4#4", "rejected": "2+2=3#3"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_preferences_are_pairs_as_they_stand(tmp_path: Path) -> None:
    path = preference_file(tmp_path / "preferences.jsonl")
    data = read_files(config(data=(path,), loss="dpo", validation=(path,)), TOKENIZER, 128)
    shown = [tuple(text_of(data.data.responses[row].token_ids) for row in item) for item in data.data.items]
    assert shown == [("1+1=2#2<eos>", "1+1=3#3<eos>"), ("2+2=4#4<eos>", "2+2=3#3<eos>")]
    assert data.validation is not None
    assert [r.outcome for r in data.validation.responses] == [1, 0, 1, 0]
    with pytest.raises(DataError, match=r"which a preference alone does not say; .* --loss dpo"):
        read_files(config(data=(path,), loss="ce"), TOKENIZER, 128)
    taken = read_files(config(data=(path,), loss="kto", preferred_is_right=True), TOKENIZER, 128).data
    assert outcomes(taken) == {1.0: 2, 0.0: 2}
    with pytest.raises(ConfigError, match=r'balance = "dataset", but .*preferences.jsonl holds pairs, which are even'):
        read_files(config(data=(path,), loss="dpo", balance="dataset"), TOKENIZER, 128)


def test_languages_choose_the_training_rows_alone(tmp_path: Path) -> None:
    tagged = [replace(s, language="sw" if k % 2 else "de") for k, s in enumerate(SOLUTIONS)]
    path = written(tmp_path / "tagged.jsonl", tagged)
    files = read_files(config(data=(path,), validation=(path,), languages=("sw",)), TOKENIZER, 128)
    assert outcomes(files.data) == Counter(s.outcome for s in tagged if s.language == "sw")
    assert files.validation is not None
    assert len(files.validation.items) == len(tagged)
    with pytest.raises(DataError, match=r"no row of .*tagged.jsonl is in the languages th, ja"):
        read_files(config(data=(path,), languages=("th", "ja")), TOKENIZER, 128)


def test_too_long_is_an_error_or_left_out_never_cut() -> None:
    lengths = [len(s.prompt.messages[0].content) + len(s.text) + 1 for s in SOLUTIONS]
    longest = max(lengths)
    encode_responses(TOKENIZER, SOLUTIONS, longest, "error")
    first = SOLUTIONS[lengths.index(longest)].id
    message = f"solution {first!r} has {longest} tokens with its prompt, more than the {longest - 1} allowed; raise max_tokens"
    with pytest.raises(DataError, match=message):
        encode_responses(TOKENIZER, SOLUTIONS, longest - 1, "error")
    data = encode_responses(TOKENIZER, SOLUTIONS, longest - 1, "leave_out")
    assert data.num_left_out == lengths.count(longest)
    assert len(data.items) == len(SOLUTIONS) - lengths.count(longest)
    assert all(text_of(r.token_ids).endswith("<eos>") for r in data.responses)
    assert f"; {data.num_left_out} left out as too long" in summary(data, on_pairs=False)
    a, b, c = (replace(SOLUTIONS[0], id=k, steps=(text,)) for k, text in (("a", "1"), ("b", "2"), ("c", "3" * 40)))
    data = encode_pairs(TOKENIZER, [Pair(chosen=a, rejected=c), Pair(chosen=b, rejected=a)], 30, "leave_out")
    assert [text_of(data.responses[r].token_ids) for item in data.items for r in item] == ["2<eos>", "1<eos>"]
    assert data.num_left_out == 1


def test_summary_counts() -> None:
    a, b, c = (replace(s, id=k, outcome=v) for s, k, v in zip(SOLUTIONS[::4], "abc", (1.0, 0.0, 0.5), strict=False))
    data = encode_responses(TOKENIZER, [a, b, c, a], 64, "error")
    assert summary(data, on_pairs=False) == "4 items of 3 responses (1 right, 1 wrong, 1 undecided) to 3 prompts"


# ---------------------------------------------------------------------------------------------- what is refused


def test_data_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    right = [replace(s, id=f"{k}", outcome=1.0) for k, s in enumerate(SOLUTIONS)]
    path = written(tmp_path / "right.jsonl", right)
    with pytest.raises(
        DataError, match=r"give no pair: no prompt has both a right and a wrong response; use loss = ce"
    ):
        read_files(config(data=(path,), loss="dpo"), TOKENIZER, 128)
    with pytest.raises(DataError, match=r"give no response to learn from \(32 were left out as too long\)"):
        read_files(config(data=(path,), too_long="leave_out"), TOKENIZER, 3)
    with pytest.raises(DataError, match=r"all 32 responses of validation are longer than 20 tokens"):
        read_files(
            config(data=(written(tmp_path / "one.jsonl", short()),), validation=(path,), too_long="leave_out"),
            TOKENIZER,
            20,
        )
    with pytest.raises(ConfigError, match="data is empty; name the files of solutions with outcomes"):
        read_files(config(), TOKENIZER, 128)


def short() -> list[Solution]:
    return [replace(SOLUTIONS[0], id="short", steps=("1",), outcome=1.0)]


def test_kto_needs_hard_outcomes_and_two_prompts(tmp_path: Path) -> None:
    soft = written(tmp_path / "soft.jsonl", [*SOLUTIONS[:5], replace(SOLUTIONS[5], outcome=0.25)])
    with pytest.raises(
        DataError, match=r"has the soft outcome 0\.25, and KTO knows right and wrong alone; use loss = ce"
    ):
        read_files(config(data=(soft,), loss="kto"), TOKENIZER, 128)
    one = written(tmp_path / "one.jsonl", SOLUTIONS[:4])
    with pytest.raises(
        DataError, match=r"KTO takes its KL from responses to other prompts, and the data have one prompt"
    ):
        read_files(config(data=(one,), loss="kto"), TOKENIZER, 128)
    data = read_files(config(data=(soft,), loss="ce"), TOKENIZER, 128).data
    with pytest.raises(DataError, match="no response to another prompt fits behind its prompt into 9 tokens"):
        mismatched_rows(data, [0], 9)


def test_a_row_without_outcome_and_a_pair_of_two_questions() -> None:
    with pytest.raises(
        DataError, match=r"solution 'x' has no outcome.* give every row one in \[0, 1\], or leave the row out"
    ):
        encode_responses(TOKENIZER, [replace(SOLUTIONS[0], id="x", outcome=None)], 128, "error")
    with pytest.raises(
        DataError,
        match="are taken for answers to one prompt, but what was asked differs; prompts with equal ids must be equal",
    ):
        encode_pairs(TOKENIZER, [Pair(chosen=SOLUTIONS[0], rejected=SOLUTIONS[4])], 128, "error")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({key: 0}, f"{key} = 0 is out of range; it must be at least 1")
            for key in ("batch_size", "max_tokens", "epochs")
        ),
        *(({key: 0}, f"{key} = 0 is out of range; it must be at least 1") for key in ("save_every", "validate_every")),
        ({"steps": -1}, "steps = -1 is out of range; it must be at least 1, or 0 to count in epochs"),
        ({"beta": 0.0}, r"beta = 0\.0 is out of range; it must be above 0 and finite"),
        ({"beta": float("nan")}, "beta = nan is out of range"),
        ({"undesirable_weight": float("inf")}, "undesirable_weight = inf is out of range"),
        ({"reference": ""}, 'reference is empty; set it to "model", "none" or a model folder'),
        ({"loss": "kto", "batch_size": 1}, "takes its KL from the batch, so batch_size must be at least 2"),
    ],
)
def test_values_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImplicitConfig(**options)


def test_steps_or_epochs() -> None:
    assert num_steps(config(batch_size=4), 9) == 3
    assert num_steps(config(batch_size=4, epochs=3), 9) == 7
    assert num_steps(config(batch_size=4, epochs=3, steps=2), 9) == 2


# ------------------------------------------------------------------------------------------------- held-out data


class Fixed:
    """A model whose log-prob of every token is chosen by the response's last character but the end token."""

    def __init__(self, per_token: dict[str, float]) -> None:
        self.per_token, self.reads = per_token, 0

    def outputs(self, batch: Any, *, entropy: bool = False) -> Any:
        from prmkit.ops.batch import TokenOutputs

        self.reads += len(batch.length_B)
        values = [
            self.per_token[text_of(ids[: int(n) - 1])[-1]]
            for ids, n in zip(batch.token_BT, batch.length_B, strict=True)
        ]
        return TokenOutputs(output_BT=torch.tensor(values)[:, None] * batch.response_mask_BT)


def test_held_out_figures_by_hand() -> None:
    """Responses of two tokens. Reference 0; log pi per token 3, 1, 2 and -1: with beta 1/2, z = 3, 1, 2 and -1.

    Right: 3 and -1 (of another prompt), wrong: 1 and 2. AUC: 3 beats both, -1 none: 2 of 4. Siblings: (3, 1) alone. Signs: right
    about 3 only.
    """
    named = {"1": 1.0, "2": 0.0, "3": 0.0, "4": 1.0}
    made = [
        replace(SOLUTIONS[0 if name in "12" else 4 if name == "3" else 8], id=name, steps=(name,), outcome=outcome)
        for name, outcome in named.items()
    ]
    data = encode_responses(TOKENIZER, made, 64, "error")
    reference: Any = Fixed(dict.fromkeys("1234", 0.0))
    held_out = HeldOut(data=data, scorer=reference, beta=0.5)
    model: Any = Fixed({"1": 3.0, "2": 1.0, "3": 2.0, "4": -1.0})
    found = held_out.evaluate(model)
    assert {k: round(v, 6) for k, v in found.items() if k != "validation/cross_entropy"} == {
        "validation/auc": 0.5,
        "validation/pair_accuracy": 1.0,
        "validation/accuracy": 0.25,
        "validation/z/right": 1.0,
        "validation/z/wrong": 1.5,
    }
    # -ln sigma(3), -ln sigma(-1), -ln sigma(-2), -ln sigma(-1)
    assert found["validation/cross_entropy"] == pytest.approx((0.048587 + 1.313262 + 2.126928 + 1.313262) / 4, abs=1e-6)
    held_out.evaluate(model)
    assert (reference.reads, model.reads) == (4, 8)


@pytest.mark.parametrize(("of", "message"), [("model", "the model in training"), ("reference", "the reference gives")])
@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_numbers_that_are_not_finite_are_not_ranked(of: str, message: str, bad: float) -> None:
    made = [replace(SOLUTIONS[0], id=name, steps=(name,), outcome=float(name == "1")) for name in "12"]
    data = encode_responses(TOKENIZER, made, 64, "error")
    sound, broken = {"1": 0.5, "2": -0.5}, {"1": bad, "2": -0.5}
    model: Any = Fixed(broken if of == "model" else sound)
    reference: Any = Fixed(broken if of == "reference" else sound)
    with pytest.raises(ModelError, match=f"{message}.* not finite"):
        HeldOut(data=data, scorer=reference, beta=1.0).evaluate(model)


def test_figures_that_the_data_cannot_give_are_left_out() -> None:
    data = encode_responses(TOKENIZER, [s for s in SOLUTIONS if s.outcome], 64, "error")
    assert sibling_pairs(data.responses) == []
    found = HeldOut(data=data, scorer=None, beta=1.0).evaluate(implicit_models(config(), scratch()).learner(1))
    assert {"validation/auc", "validation/pair_accuracy", "validation/z/wrong"}.isdisjoint(found)
    assert found["validation/accuracy"] == 0.0  # log pi alone is never above 0


def test_the_command_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [f"--model.path={micro_model()}", "--model.device=cpu", f"--run-dir={tmp_path / 'run'}"]
    assert main(["train", "implicit", *flags]) == 2
    assert capsys.readouterr().err.startswith("error: data is empty; name the files")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("loss", ["ce", "kto"])
def test_preferences_without_right_and_wrong_name_both_ways_out(
    loss: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "preferences.jsonl"
    path.write_text('{"prompt": "1+2=?", "chosen": "1+2=3", "rejected": "1+2=4"}\n')
    flags = [
        f"--data={path}",
        f"--loss={loss}",
        f"--model.path={tmp_path / 'nowhere'}",
        f"--run-dir={tmp_path / 'run'}",
    ]
    assert main(["train", "implicit", *flags]) == 2
    said = capsys.readouterr().err
    assert f"{path}: its rows are preferences" in said
    assert "--preferred-is-right true" in said
    assert "--loss dpo" in said
    assert main(["train", "implicit", *flags, "--preferred-is-right=true"]) == 1  # on to the model, which is not there
    assert "no such model folder" in capsys.readouterr().err


def test_missing_outcomes_are_counted_before_the_model_is_looked_at(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [SOLUTIONS[0], *(replace(s, outcome=None) for s in SOLUTIONS[1:3])])
    with pytest.raises(DataError, match=rf"solution '{SOLUTIONS[1].id}' has no outcome.*2 of 3 solutions have none"):
        read_rows(config(data=(path,)))
