"""Whether the verifier could judge anything at all, before anything is sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from prmkit.config import VerifierConfig
from prmkit.data.types import Prompt
from prmkit.errors import ConfigError
from prmkit.verify.user_function import data_source


def check_fields(config: VerifierConfig, prompts: Sequence[Prompt]) -> None:
    """Raises ConfigError for a verifier that needs a field which none of the prompts that it judges has."""
    for where, use, template, mine in _parts(config, prompts):
        if not mine:
            continue
        if use == "code" and not any(prompt.meta.get("tests") for prompt in mine):
            raise ConfigError(
                f'{where} = "code" runs programs against tests, and none of {len(mine)} prompts has any (field "tests"); give '
                'a task with tests such as humaneval or code, or choose another verifier ("auto" takes the one of each prompt)'
            )
        needs_answer = use in ("math", "qa") or (use == "judge" and template == "reference")
        if needs_answer and not any(prompt.answer.strip() for prompt in mine):
            raise ConfigError(
                f'{where} = "{use}" compares with a reference answer, and none of {len(mine)} prompts has one; give data with '
                'answers, or choose a verifier that needs none (a function, or a judge with the template "open")'
            )


def _parts(config: VerifierConfig, prompts: Sequence[Prompt]) -> Iterator[tuple[str, str, str, list[Prompt]]]:
    """Key of the configuration, kind, the judge's template, and the prompts it judges, for each part of the verifier."""
    if config.parts:
        for index, part in enumerate(config.parts):
            mine = [p for p in prompts if not part.sources or any(fnmatchcase(data_source(p), s) for s in part.sources)]
            yield f"verifier.parts[{index}].use", part.use, part.judge.template, mine
    elif config.function:
        return
    elif config.use == "auto":
        for use in ("math", "qa", "code"):
            yield "verifier.use", use, "", [p for p in prompts if p.meta.get("verifier", "math") == use]
    else:
        yield "verifier.use", config.use, config.judge.template, list(prompts)
