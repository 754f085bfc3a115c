"""The doctor on tokenizer, template and weights: the bugs that PRM trainings have died of, each beside its sound twin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from doctor_setup import Row, byte_level, find, patient_of, said, sentencepiece_like, sound_rows, write_rows
from safetensors.torch import load_file, save_file

from prmkit.doctor.config import DoctorConfig
from prmkit.doctor.embeddings import check_embeddings, embedding_rows, reserved_ids
from prmkit.doctor.examine import examine, spread
from prmkit.doctor.finding import Finding
from prmkit.doctor.patient import load_patient
from prmkit.doctor.tokens import joined_steps
from prmkit.errors import ModelError
from prmkit.models.tiny import make_tiny

SOUND = {("note", "labels.balance"), ("note", "leak.not_checked")}
UNREAD = ("warning", "tokens.untrained")
"""Weights that are not there are said to be unread."""


def look(tmp_path: Path, rows: list[Row], tokenizer: Any, **config: Any) -> list[Finding]:
    data = write_rows(tmp_path / "train.jsonl", rows)
    context = config.pop("context", 10_000)
    findings = examine(DoctorConfig(data=(data,), **config), patient_of(tokenizer, tmp_path, context))
    return [finding for finding in findings if (finding.severity, finding.check) != UNREAD]


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("micro"), seed=0, size="micro")


def openrlhf_rows() -> list[Row]:
    """The placeholder after each step, one label for each placeholder."""
    return [
        {
            "input": row["prompt"] + "".join(f"\nStep {k + 1}: {step} ки" for k, step in enumerate(row["completions"])),
            "value": [float(v) for v in row["labels"]],
        }
        for row in sound_rows()
    ]


TAGGED = {"separator": "ки", "form": "label_tokens", "labels": ("+", "-"), "join": "text"}


def test_a_placeholder_that_is_another_token_in_context(tmp_path: Path) -> None:
    """OpenRLHF issue 683: alone the tokenizer puts a word start before `ки`, in the text it does not; all labels are -100."""
    rows = [{**row, "input": row["input"].replace(" ки", "ки")} for row in openrlhf_rows()]
    broken = sentencepiece_like()
    assert broken.convert_ids_to_tokens(broken("ки", add_special_tokens=False)["input_ids"]) == ["▁ки"]
    assert broken.convert_ids_to_tokens(broken("1=1ки", add_special_tokens=False)["input_ids"])[-1] == "ки"
    findings = look(tmp_path, rows, broken, **TAGGED)
    assert said(findings) - SOUND == {("error", "tokens.separator_lost"), ("error", "tokens.label")}
    lost = find(findings, "tokens.separator_lost")
    assert "0 times for 160 labels" in lost.what
    assert lost.where.endswith("train.jsonl:1, :2, :3 and 37 more")
    sound = sentencepiece_like(special=("ки", "<+>", "<->"))
    assert said(look(tmp_path, rows, sound, **{**TAGGED, "labels": ("<+>", "<->")})) == SOUND


def test_a_placeholder_that_merges_with_what_follows(tmp_path: Path) -> None:
    """OpenRLHF issue 740: ` $$` is one token of Qwen's, but before a newline it is part of another; the loss is NaN."""
    rows = [{**row, "input": row["input"].replace(" ки", " $$") + "\n"} for row in openrlhf_rows()]
    merges = [("$", "$"), ("Ġ", "$$"), ("Ġ$$", "Ċ")]
    config = {**TAGGED, "separator": " $$", "placeholder": " $$"}
    assert len(byte_level(merges)(" $$", add_special_tokens=False)["input_ids"]) == 1
    findings = look(tmp_path, rows, byte_level(merges), **config)
    assert said(findings) - SOUND == {("error", "tokens.separator_lost")}
    assert said(look(tmp_path, rows, byte_level(merges[:2]), **config)) == SOUND


def merging_rows() -> list[Row]:
    """Steps that end in a full stop."""
    return [{**row, "completions": [f"{step}." for step in row["completions"]]} for row in sound_rows()]


NEWLINES = [("Ċ", "Ċ")]
SWALLOWED = [("Ċ", "Ċ"), (".", "ĊĊ")]
"""As in GPT-2 and Qwen, `.` and a blank line make one token."""


def test_joined_text_has_other_ids_than_joined_ids(tmp_path: Path) -> None:
    """ProcessBench issue 12: scored on joined text, the average F1 was 56.1 instead of 60.3."""
    findings = look(tmp_path, merging_rows(), byte_level(SWALLOWED), join="text")
    assert said(findings) - SOUND == {("error", "tokens.separator_lost"), ("warning", "tokens.joined_ids")}
    assert find(findings, "tokens.joined_ids").what.startswith("160 of 160 (100.0%) steps")
    assert "'.ĊĊ'" in find(findings, "tokens.separator_lost").what
    by_ids = look(tmp_path, merging_rows(), byte_level(SWALLOWED), join="ids")
    assert said(by_ids) - SOUND == {("note", "tokens.separator_lost"), ("note", "tokens.joined_ids")}
    for join in ("ids", "text"):
        assert said(look(tmp_path, merging_rows(), byte_level(NEWLINES), join=join)) == SOUND


def test_only_the_steps_that_change_are_counted(tmp_path: Path) -> None:
    rows = merging_rows()
    for row in rows:
        row["completions"][1] = row["completions"][1][:-1]  # no full stop, no merge
    findings = look(tmp_path, rows, byte_level(SWALLOWED), join="text")
    assert find(findings, "tokens.joined_ids").what.startswith("120 of 160 (75.0%) steps")


def test_tokens_of_joined_text_belong_to_the_step_of_their_last_character() -> None:
    """`Ċa` straddles the border of two steps and is the second one's."""
    tokenizer = byte_level([("Ċ", "a")])
    names = [tokenizer.convert_ids_to_tokens(list(ids)) for ids in joined_steps(tokenizer, ["b", "a"], "\n")]
    assert names == [["b"], ["Ċa", "Ċ"]]
    bytes_of_one = joined_steps(byte_level([]), ["é", "x"], ";")
    assert [len(ids) for ids in bytes_of_one] == [3, 2]


@pytest.mark.parametrize(("form", "severity"), [("head", "warning"), ("label_tokens", "error")])
def test_a_separator_of_several_tokens(tmp_path: Path, form: Any, severity: str) -> None:
    findings = look(tmp_path, sound_rows(), byte_level([]), separator="\n\n", form=form)
    assert said(findings) - SOUND == {(severity, "tokens.separator")}
    assert find(findings, "tokens.separator").what.startswith(r"the separator '\n\n' is 2 tokens: 'Ċ' (")
    assert said(look(tmp_path, sound_rows(), byte_level(NEWLINES), separator="\n\n", form=form)) == SOUND


def test_a_separator_that_is_no_token(tmp_path: Path) -> None:
    findings = look(tmp_path, sound_rows(), sentencepiece_like(), separator="@")
    assert said(findings) - SOUND == {("error", "tokens.separator")}
    assert "does not know the separator '@'" in find(findings, "tokens.separator").what


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("+", "-"), set()),
        (("yes", "no"), {("error", "tokens.label")}),
        (("+", "+"), {("error", "tokens.label")}),
        (("-", "+"), {("error", "labels.order")}),
        (("é", "-"), {("error", "tokens.label")}),
    ],
)
def test_label_tokens_are_single_different_and_right_first(
    tmp_path: Path, labels: Sequence[str], expected: set[tuple[str, str]]
) -> None:
    """OpenRLHF issue 510: `-` before `+` makes soft labels the probability of wrong."""
    tokenizer = byte_level(NEWLINES)
    assert said(look(tmp_path, sound_rows(), tokenizer, form="label_tokens", labels=tuple(labels))) - SOUND == expected


def test_label_tokens_at_the_separator_under_a_shifted_loss(tmp_path: Path) -> None:
    """A causal loss shifts: a label at the separator trains the logit before it. The label token must follow."""
    tokenizer = byte_level(NEWLINES)
    mark, plus, minus = (tokenizer(text)["input_ids"][0] for text in ("\n\n", "+", "-"))
    at = [{"input_ids": [5, mark, 6, mark, 7], "labels": [-100, plus, -100, minus, -100]} for _ in range(6)]
    tokenised = {("note", "data.tokenised")}
    assert said(look(tmp_path, at, tokenizer, form="label_tokens")) == {*tokenised, ("error", "labels.off_by_one")}
    assert said(look(tmp_path, at, tokenizer, form="head")) == tokenised


def test_label_tokens_behind_the_separator_are_no_fault(tmp_path: Path) -> None:
    tokenizer = byte_level(NEWLINES)
    mark, plus, minus = (tokenizer(text)["input_ids"][0] for text in ("\n\n", "+", "-"))
    rows = [
        {"input_ids": [5, mark, plus, 6, mark, minus], "labels": [-100, -100, plus, -100, -100, minus]}
        for _ in range(6)
    ]
    assert said(look(tmp_path, rows, tokenizer, form="label_tokens")) == {("note", "data.tokenised")}


def test_labels_that_truncation_takes_away(tmp_path: Path) -> None:
    """Prompts are 20 bytes; a step and its separator are 12 or more."""
    rows, tokenizer = sound_rows(), byte_level(NEWLINES)
    assert said(look(tmp_path, rows, tokenizer, max_tokens=200)) == SOUND
    cut = look(tmp_path, rows, tokenizer, max_tokens=40)
    assert said(cut) - SOUND == {("warning", "length.cut")}
    assert find(cut, "length.cut").what.startswith("40 of 40 (100.0%) solutions are longer than 40 tokens; ")
    none_left = look(tmp_path, rows, tokenizer, max_tokens=25)
    assert said(none_left) - SOUND == {("warning", "length.cut"), ("error", "labels.all_ignored")}
    full = look(tmp_path, rows, tokenizer, max_tokens=200, context=10)  # the context bounds what max_tokens may ask
    assert said(full) - SOUND == {
        ("error", "length.prompt"),
        ("warning", "length.cut"),
        ("error", "labels.all_ignored"),
    }


def test_labels_that_are_all_neutral_and_dropped(tmp_path: Path) -> None:
    rows = [
        {"problem": row["prompt"], "steps": row["completions"], "ratings": [1 if v else -1 for v in row["labels"]]}
        for row in sound_rows()
    ]
    rows[5]["ratings"] = [0, 0, 0, 0]
    kept = look(tmp_path, rows, byte_level(NEWLINES))
    assert said(kept) - SOUND == {("note", "labels.neutral")}
    dropped = look(tmp_path, rows, byte_level(NEWLINES), neutral="drop")
    assert said(dropped) - SOUND == {("note", "labels.neutral"), ("warning", "labels.all_ignored")}
    assert find(dropped, "labels.all_ignored").where.endswith("train.jsonl:6")


def test_characters_that_the_tokenizer_does_not_know(tmp_path: Path, micro: Path) -> None:
    patient = load_patient(str(micro), tmp_path)
    rows = sound_rows()
    rows[7]["completions"][0] = "a+b=c"
    data = write_rows(tmp_path / "train.jsonl", rows)
    findings = examine(DoctorConfig(data=(data,), separator=";"), patient)
    assert said(findings) - SOUND == {("error", "tokens.not_encodable")}
    assert find(findings, "tokens.not_encodable").where.endswith("train.jsonl:8")
    rows[7]["completions"][0] = "1+1=2 é"
    unknown = look(tmp_path, rows, sentencepiece_like(special=("<sep>",)), separator="<sep>")
    # apart, each step begins with a word start
    joined = ("note", "tokens.joined_ids")
    assert said(unknown) - SOUND == {("warning", "tokens.unknown"), ("warning", "tokens.step_text"), joined}
    assert find(unknown, "tokens.unknown").where.endswith("train.jsonl:8")


def test_a_normaliser_that_changes_steps(tmp_path: Path) -> None:
    from tokenizers import normalizers

    tokenizer = byte_level(NEWLINES)
    assert said(look(tmp_path, sound_rows(), tokenizer)) == SOUND
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("+", "")
    findings = look(tmp_path, sound_rows(), tokenizer)
    assert said(findings) - SOUND == {("warning", "tokens.step_text")}


TEMPLATES = {
    "sound": ("{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
              "{% if add_generation_prompt %}[assistant]{% endif %}", set()),
    "drops what comes before a mark": (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'].split('=')[-1] if m['role'] == 'assistant' else m['content'] }}"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
        {("warning", "template.changed")},
    ),
    "strips": (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}",
        {("warning", "template.stripped")},
    ),
    "no prefix": (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]think{% endif %}",
        {("warning", "template.prefix")},
    ),
    "drops the question": (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }}{% endif %}{% endfor %}",
        {("error", "template.prompt")},
    ),
    "refuses": ("{{ raise_exception('no users here') }}", {("error", "template.refused"), ("error", "tokens.not_encodable")}),
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_chat_template_does_to_steps(tmp_path: Path, name: str) -> None:
    template, expected = TEMPLATES[name]
    tokenizer = byte_level(NEWLINES)
    tokenizer.chat_template = template
    rows = [{**row, "completions": [*row["completions"][:3], row["completions"][3] + " "]} for row in sound_rows()]
    assert said(look(tmp_path, rows, tokenizer, layout="chat")) - SOUND == expected
    assert said(look(tmp_path, rows, tokenizer, layout="plain")) == SOUND


def test_a_tokenizer_without_template(tmp_path: Path) -> None:
    tokenizer = byte_level(NEWLINES)
    tokenizer.chat_template = None
    assert ("error", "template.missing") in said(look(tmp_path, sound_rows(), tokenizer, layout="chat"))
    assert said(look(tmp_path, sound_rows(), tokenizer)) == SOUND


def spoiled(source: Path, target: Path, row: int, value: torch.Tensor, *, beside: int | None = None) -> Path:
    """The model with one embedding row (and that of a second token) replaced."""
    weights = load_file(source / "model.safetensors")
    for token in (row, *([] if beside is None else [beside])):
        weights["model.embed_tokens.weight"][token] = value
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


SEMICOLON = 15
"""Its id in the character tokenizer: padding, end, ten digits, + - = ; follow."""


@pytest.mark.parametrize(
    ("value", "beside", "expected", "words"),
    [
        (None, None, None, ""),
        (torch.zeros(32), None, "error", "is zero: it was never trained"),
        (
            torch.full((32,), 0.1),
            SEMICOLON + 1,
            "error",
            f"equals that of 1 other tokens, such as token {SEMICOLON + 1}",
        ),
        (torch.full((32,), 0.001), None, "warning", "has the norm 0.00566, the median is"),
        (torch.full((32,), 50.0), None, "warning", "has the norm 283, the median is"),
        (torch.full((32,), float("nan")), None, "error", "is not finite"),
    ],
)
def test_a_separator_that_was_never_trained(
    tmp_path: Path, micro: Path, value: torch.Tensor | None, beside: int | None, expected: str | None, words: str
) -> None:
    """OpenRLHF issue 648: reserved tokens have embeddings that are zero, or all the same."""
    patient = load_patient(str(micro), tmp_path)
    assert patient.tokenizer.convert_tokens_to_ids(";") == SEMICOLON
    if value is not None:
        patient = load_patient(str(spoiled(micro, tmp_path / "spoiled", SEMICOLON, value, beside=beside)), tmp_path)
    data = write_rows(tmp_path / "train.jsonl", sound_rows())
    findings = examine(DoctorConfig(data=(data,), separator=";"), patient)
    assert said(findings) - SOUND == (set() if expected is None else {(expected, "tokens.untrained")})
    if expected is not None:
        found = find(findings, "tokens.untrained")
        assert words in found.what
        assert found.where == "the separator ';': row 15 of model.safetensors: model.embed_tokens.weight"


def untied(folder: Path, rows: int = 40) -> Path:
    """Input and output embeddings in files of their own, beside an index. Rows have norms near 1; the last five 0.3."""
    generator = torch.Generator().manual_seed(0)
    norms = torch.linspace(0.8, 1.2, rows)
    norms[-5:] = torch.linspace(0.29, 0.31, 5)
    inputs, outputs = (
        torch.nn.functional.normalize(torch.randn(rows, 8, generator=generator)) * norms[:, None] for _ in range(2)
    )
    folder.mkdir()
    save_file({"model.embed_tokens.weight": inputs.contiguous()}, folder / "a.safetensors")
    outputs[3] = 0
    save_file({"lm_head.weight": outputs.contiguous()}, folder / "b.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"model.embed_tokens.weight": "a.safetensors", "lm_head.weight": "b.safetensors"}}'
    )
    return folder


def test_output_embeddings_are_looked_at_too(tmp_path: Path) -> None:
    inputs, outputs = embedding_rows(untied(tmp_path / "model"), [3, 4])
    assert list(check_embeddings(inputs, {3: "three", 4: "four"}, [])) == []
    (found,) = check_embeddings(outputs, {3: "three", 4: "four"}, [])
    assert found.where == "three: row 3 of b.safetensors: lm_head.weight"


def test_a_norm_like_that_of_unused_tokens(tmp_path: Path) -> None:
    """0.3 is within a factor 5 of the median, but just as the four unused rows have it, and no other row."""
    inputs, _ = embedding_rows(untied(tmp_path / "model"), [4, 38])
    reserved = reserved_ids({f"t{i}": i for i in range(35)} | {"<|reserved_0|>": 35}, 40)
    assert reserved == [35, 36, 37, 38, 39]
    assert list(check_embeddings(inputs, {4: "four"}, reserved)) == []
    (found,) = check_embeddings(inputs, {38: "it"}, reserved)
    assert (found.severity, "as unused tokens have it" in found.what) == ("warning", True)
    assert list(check_embeddings(inputs, {38: "it"}, reserved[:2])) == []  # too few to compare with


def test_a_token_beyond_the_embeddings(tmp_path: Path) -> None:
    inputs, _ = embedding_rows(untied(tmp_path / "model"), [4, 40])
    (found,) = check_embeddings(inputs, {40: "new"}, [])
    assert found.what == "new is token 40, but there are 40 rows"


def test_of_a_runs_folder_the_last_checkpoint_is_examined(tmp_path: Path, micro: Path) -> None:
    for step in (2, 4):
        copytree(micro, tmp_path / "run" / "checkpoints" / f"step_{step:06d}" / "prm")
    found = load_patient(str(tmp_path / "run"), tmp_path)
    assert found.folder == tmp_path / "run" / "checkpoints" / "step_000004" / "prm"
    assert found.context == load_patient(str(micro), tmp_path).context
    copytree(micro, tmp_path / "run" / "checkpoints" / "step_000004" / "policy")
    assert load_patient(str(tmp_path / "run"), tmp_path).folder.name == "policy"


def test_an_adapter_is_judged_by_its_base(tmp_path: Path) -> None:
    base, adapter = untied(tmp_path / "model"), tmp_path / "adapter"
    adapter.mkdir()
    (base / "config.json").write_text("{}")
    (adapter / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{base}"}}')
    assert [rows.name for rows in embedding_rows(adapter, [4])] == [rows.name for rows in embedding_rows(base, [4])]
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not name its base"):
        embedding_rows(adapter, [4])


def test_weights_that_cannot_be_read_are_a_finding(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "train.jsonl", sound_rows())
    findings = examine(DoctorConfig(data=(data,)), patient_of(byte_level(NEWLINES), tmp_path))
    assert said(findings) - SOUND == {UNREAD}
    assert "no input embeddings among its safetensors" in find(findings, "tokens.untrained").what


def test_implicit_training_is_examined_through_the_template(tmp_path: Path, micro: Path) -> None:
    rows = [
        {
            "id": f"{row['id']}/{k}",
            "prompt": row["prompt"],
            "steps": row["completions"] if k else ["0+0=1", *row["completions"][1:]],
            "separator": ";",
            "outcome": float(k),
        }
        for row in sound_rows()
        for k in (0, 1)
    ]
    config = DoctorConfig(data=(write_rows(tmp_path / "train.jsonl", rows),), form="implicit", max_tokens=100)
    patient = load_patient(str(micro), tmp_path)
    assert said(examine(config, patient)) == {("note", "outcomes.balance"), ("note", "leak.not_checked")}
    short = DoctorConfig(data=config.data, form="implicit", max_tokens=30)
    assert said(examine(short, patient)) - SOUND == {("note", "outcomes.balance"), ("warning", "length.cut")}


def test_a_sample_is_spread_over_the_file() -> None:
    items: Any = list(range(10))
    assert spread(items, 4) == [0, 2, 5, 7]
    assert spread(items, 0) == spread(items, 10) == items
