"""`prmkit doctor`: what would silently ruin a PRM, said before it is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from prmkit.doctor.examine import examine
from prmkit.doctor.finding import Finding, Severity, counts
from prmkit.errors import ConfigError

if TYPE_CHECKING:
    from prmkit.doctor.config import DoctorConfig

console = Console(soft_wrap=True, markup=False, emoji=False)
COLOURS: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def doctor(config: DoctorConfig) -> None:
    """Examine, print, write; ends with exit code 1 where there is an error among the findings."""
    if not config.data:
        raise ConfigError("data is not set; prmkit doctor --data FILE.jsonl... [--model FOLDER] [--test FILE.jsonl]")
    patient = None
    if config.model:
        from prmkit.doctor.patient import load_patient
        from prmkit.models.folders import work_dir

        patient = load_patient(config.model, work_dir())
    findings = examine(config, patient)
    if config.out:
        from prmkit.evaluate.run import write_result

        write_result(Path(config.out), findings_json(config, findings))
    if config.json:
        print(json.dumps(findings_json(config, findings), ensure_ascii=False, indent=1))
    else:
        for finding in findings:
            console.print(finding_text(finding))
        console.print(summary(findings))
    if any(finding.severity == "error" for finding in findings):
        raise SystemExit(1)


def finding_text(finding: Finding) -> Text:
    """Severity and name, what, where, how."""
    return Text.assemble(
        (f"{finding.severity}: {finding.check}", COLOURS[finding.severity]),
        f"\n  {finding.what}\n  where: {finding.where}\n  mend:  {finding.how}",
    )


def summary(findings: Sequence[Finding]) -> str:
    """How many of each severity."""
    return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts(findings).items())


def findings_json(config: DoctorConfig, findings: Sequence[Finding]) -> dict[str, Any]:
    """What was examined and what was found."""
    return {
        "data": list(config.data),
        "test": config.test,
        "model": config.model,
        "form": config.form,
        "counts": counts(findings),
        "findings": [
            {key: getattr(finding, key) for key in ("severity", "check", "what", "where", "how")}
            for finding in findings
        ],
    }
