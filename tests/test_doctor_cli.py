"""`prmkit doctor` as a command: exit codes, output, real rows, and a page that names every check."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doctor_setup import said, sound_rows, write_rows

from prmkit.cli.main import main
from prmkit.doctor.config import DoctorConfig
from prmkit.doctor.examine import examine
from prmkit.models.tiny import make_tiny

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT / "tests" / "data"


@pytest.fixture
def sound(tmp_path: Path) -> str:
    return write_rows(tmp_path / "sound.jsonl", sound_rows())


@pytest.fixture
def spoiled(tmp_path: Path) -> str:
    rows = sound_rows()
    rows[3]["labels"] = [True]
    return write_rows(tmp_path / "spoiled.jsonl", rows)


def test_the_exit_code_says_whether_there_is_an_error(
    tmp_path: Path, sound: str, spoiled: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(make_tiny(tmp_path / "model", seed=0, size="micro"))
    assert main(["doctor", "--data", sound, "--model", model, "--separator", ";"]) == 0
    assert "0 errors, 0 warnings, 2 notes\n" in capsys.readouterr().out
    assert main(["doctor", "--data", spoiled, "--separator", ";"]) == 1
    out = capsys.readouterr().out
    assert out.startswith(
        f"error: labels.count\n  1 rows have not as many labels as steps\n  where: {spoiled}:4 (1 labels"
    )
    assert "1 error, 0 warnings, 2 notes\n" in out
    assert main(["doctor", "--data", sound, "--form", "label_tokens", "--labels", "-", "+", "--separator", ";"]) == 1
    assert "the label tokens are '-' for right and '+' for wrong: the wrong way round" in capsys.readouterr().out


def test_findings_as_json(tmp_path: Path, spoiled: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "findings.json"
    assert main(["doctor", "--data", spoiled, "--separator", ";", "--json", "true", "--out", str(out)]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert printed["counts"] == {"error": 1, "warning": 0, "note": 2}
    assert [finding["check"] for finding in printed["findings"]] == [
        "labels.count",
        "labels.balance",
        "leak.not_checked",
    ]
    assert set(printed["findings"][0]) == {"severity", "check", "what", "where", "how"}


def test_what_cannot_run_is_explained(tmp_path: Path, sound: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 2
    assert "data is not set; prmkit doctor --data FILE.jsonl... " in capsys.readouterr().err
    assert main(["doctor", "--data", sound, "--model", str(tmp_path / "nowhere")]) == 1
    assert "no such model folder" in capsys.readouterr().err
    assert main(["doctor", "--data", sound, "--format", "trll"]) == 2
    assert 'unknown data format "trll"' in capsys.readouterr().err


def test_looking_at_data_alone_loads_no_torch(sound: str) -> None:
    code = (
        "import sys; from prmkit.cli.main import main; "
        f"main(['doctor', '--data', {sound!r}, '--separator', ';']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("0 errors, 0 warnings, 2 notes\nFalse\n"), done.stderr


def test_real_human_labels_have_no_error() -> None:
    """24 trajectories of PRM800K: half have no wrong step, the others end at their first."""
    findings = examine(DoctorConfig(data=(str(REAL / "doctor_prm800k_steps.jsonl"),)), None)
    assert said(findings) == {
        ("warning", "data.separator_in_step"),  # "# Answer" stands behind a blank line
        ("note", "labels.balance"),
        ("note", "labels.neutral"),
        ("note", "labels.first_error"),
        ("note", "leak.answer_tail"),
    }


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("prm800k_steps", "head"),
        ("prm800k_phase2", "head"),
        ("mr_gsm8k", "head"),
        ("prmbench", "head"),
        ("math_aps", "head"),
        ("gsm8k_model_solutions", "implicit"),
        ("candidates", "implicit"),
        ("math_bestof_rm", "implicit"),
    ],
)
def test_rows_of_public_files_are_no_alarm(name: str, form: str) -> None:
    """A few rows each; some hold one class only, which is no fault of theirs."""
    findings = examine(DoctorConfig(data=(str(REAL / "formats" / f"{name}.jsonl"),), form=form), None)  # type: ignore[arg-type]
    few = {("error", "labels.one_class"), ("error", "outcomes.one_class")}
    assert not {found for found in said(findings) if found[0] == "error"} - few


def test_several_files_are_one_training_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What stands in both is found, each fault has its own file, and ids are compared within a file."""
    first, other = sound_rows(), sound_rows(start=40)
    other[2] = {**first[5], "id": "r42"}
    other[3]["labels"] = [True]
    other[4]["id"] = first[0]["id"]
    paths = [write_rows(tmp_path / name, rows) for name, rows in (("a.jsonl", first), ("a.jsonl2", other))]
    assert main(["doctor", "--data", *paths, "--separator", ";", "--json", "true"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["data"] == paths
    found = {finding["check"]: finding for finding in printed["findings"]}
    assert set(found) == {"labels.count", "labels.balance", "data.duplicate_solution", "leak.not_checked"}
    assert found["labels.count"]["where"].startswith(f"{paths[1]}:4 (1 labels")
    assert found["data.duplicate_solution"]["where"] == f"{paths[1]}:3"
    assert found["labels.balance"]["where"] == "79 solutions"


def test_a_tokenised_file_beside_one_of_texts(tmp_path: Path, sound: str) -> None:
    rows = [{"input_ids": [5, 6, 7], "labels": [True, True, False]}]
    findings = examine(DoctorConfig(data=(sound, write_rows(tmp_path / "ids.jsonl", rows)), separator=";"), None)
    texts = {("note", "labels.balance"), ("note", "leak.not_checked")}
    assert said(findings) == {("error", "labels.ignored_cast"), ("note", "data.tokenised"), *texts}


def test_error_steps_that_a_solution_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    """Row 2 of the excerpt names step 8 of 7; read as the evaluation reads it, and said."""
    data = str(REAL / "formats" / "prmbench.jsonl")
    assert main(["doctor", "--data", data]) == 0
    out = capsys.readouterr().out
    assert "warning: labels.outside\n  1 of 4 (25.0%) solutions name error steps that they do not have" in out
    assert f"where: {data}:2" in out
    assert main(["doctor", "--data", data, "--outside", "refuse"]) == 1
    assert "error step 8 of a solution with 7 steps" in capsys.readouterr().out


def test_the_page_names_every_check() -> None:
    source = "".join(path.read_text() for path in sorted((ROOT / "src" / "prmkit" / "doctor").glob("*.py")))
    names = set(re.findall(r'check="([a-z_.]+)"', source))
    names |= {f"template.{name}" for name in ("refused", "prompt", "changed", "stripped", "prefix")}
    listed = re.findall(r"^\| `([a-z_.]+)` \|", (ROOT / "docs" / "doctor.md").read_text(), flags=re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == names
