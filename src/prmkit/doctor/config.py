"""Configuration of the doctor. Plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prmkit.errors import ConfigError

Form = Literal["head", "label_tokens", "implicit", "outcome"]
Expected = Literal["auto", "hard", "soft"]
Join = Literal["ids", "text"]
NeutralAs = Literal["right", "wrong", "class", "drop"]


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Look for what silently ruins a PRM, before it is trained: `prmkit doctor --model FOLDER --data FILE...`.

    The exit code is 1 if there is an error among the findings, 0 otherwise.
    """

    data: tuple[str, ...] = ()
    """JSONL files to train on, in any format that `prmkit data convert` reads."""
    test: str = ""
    """JSONL file to test on; empty: nothing is compared with `data`."""
    format: str = "auto"
    """Format of all these files; auto: found out from the first rows of each."""
    outside: Literal["refuse", "ignore"] = "ignore"
    """PRMBench: error steps that the solution does not have. `ignore`: leave them out, as the official evaluation and
    `prmkit eval prm` do, and count the rows; `refuse`: such a row cannot be read, as in training and scoring."""
    model: str = ""
    """Folder of the model to train, or `tiny` or `smollm2`; empty: only the data is looked at."""
    form: Form = "head"
    """What is to be trained. `head`: classes at the separator after each step. `label_tokens`: a causal LM that says a label
    token there. `implicit`: log-ratios learned from outcomes. `outcome`: one value of the whole answer."""
    separator: str = "\n\n"
    """Text after each step at which its label stands."""
    labels: tuple[str, ...] = ("+", "-")
    """form = "label_tokens": the tokens for right, wrong and, where neutral is a class, neutral."""
    expected: Expected = "auto"
    """What labels the training expects. `hard`: right, wrong or neutral; `soft`: any number in [0, 1]; `auto`: what there is."""
    neutral: NeutralAs = "right"
    """What a neutral step will be trained as: right, wrong, a class of its own, or not at all."""
    join: Join = "ids"
    """How steps and separators become one sequence. `ids`: tokenised apart, ids joined (prmkit and TRL). `text`: text joined,
    then tokenised (OpenRLHF, Math-Shepherd's own scripts)."""
    layout: Literal["plain", "chat"] = "plain"
    """The prompt: its text as it is, or through the chat template. An implicit PRM always uses the template."""
    placeholder: str = "ки"
    """The step tag in Math-Shepherd and OpenRLHF rows."""
    max_tokens: int = 0
    """Longest sequence of the training, prompt included; 0: the model's context."""
    sample: int = 1000
    """Tokenise only so many solutions, spread over the file; 0: all. Checks of the data itself always see all."""
    json: bool = False
    """Print the findings as one JSON object."""
    out: str = ""
    """JSON file for the findings; empty: they are printed only."""

    def __post_init__(self) -> None:
        for key in ("max_tokens", "sample"):
            if getattr(self, key) < 0:
                raise ConfigError(f"{key} = {getattr(self, key)} is out of range; it must be at least 0")
        if self.form in ("head", "label_tokens") and not self.separator:
            raise ConfigError(
                f'separator is empty, but form = "{self.form}" reads each step at a separator; set separator = "\\n\\n"'
            )
        wanted = 3 if self.neutral == "class" else 2
        if self.form == "label_tokens" and len(self.labels) != wanted:
            raise ConfigError(
                f'labels has {len(self.labels)} entries, but neutral = "{self.neutral}" needs {wanted}: right, wrong'
                + (", neutral" if wanted == 3 else "")
            )
        if self.out and not self.out.endswith(".json"):
            raise ConfigError(f'out = "{self.out}", but the findings are a JSON file; set out = "{self.out}.json"')

    @property
    def on_steps(self) -> bool:
        """Whether the training learns from labels of steps."""
        return self.form in ("head", "label_tokens")
