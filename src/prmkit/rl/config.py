"""Configuration of an RL run. Plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from prmkit.config import ModelConfig, OptimizerConfig, ReportTo, TaskConfig, VerifierConfig
from prmkit.data.types import SamplingParams
from prmkit.errors import ConfigError
from prmkit.rl.algorithm import Algorithm


@dataclass(frozen=True, kw_only=True)
class RLConfig:
    """One online RL run: `prmkit rl CONFIG.toml`."""

    run_dir: str = "runs/rl"
    """Folder of the run. If it holds checkpoints of the same configuration, the run goes on from the last one."""
    seed: int = 0
    steps: int = 50
    prompts_per_step: int = 32
    """Groups that one update learns from (PRIME: 256)."""
    preset: str = "prime"
    """Name of the algorithm that `[algorithm]` starts from; see `prmkit.rl.presets`."""
    model: ModelConfig = field(default_factory=ModelConfig)
    prm_path: str = ""
    """Start of the PRM: an implicit PRM or a causal LM, or a run folder (its last PRM, else its last policy); empty: the policy's
    start, as in PRIME. A PRM's own beta and reference have to be those of the run (docs/prime.md)."""
    reference_path: str = ""
    """The PRM's and the KL's reference; empty: the policy's start. Not with model.lora_rank, where it is model.path."""
    task: TaskConfig = field(default_factory=TaskConfig)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    verifier: VerifierConfig = field(default_factory=VerifierConfig)
    algorithm: Algorithm = field(default_factory=Algorithm)
    policy: OptimizerConfig = field(default_factory=OptimizerConfig)
    prm: OptimizerConfig = field(default_factory=OptimizerConfig)
    critic: OptimizerConfig = field(default_factory=OptimizerConfig)
    eval_every: int = 0
    """Evaluate on the test prompts every so many steps (and at both ends); 0: not at all."""
    eval_prompts: int = 128
    eval_samples: int = 4
    """Sampled responses per test prompt; one greedy response comes on top."""
    save_every: int = 10
    """A checkpoint every so many steps and at the end."""
    keep_checkpoints: int = 2
    record_rollouts_every: int = 10
    """Steps between recorded rollouts; 0 records none."""
    keep_rollouts: int = 50
    """Recorded steps that are kept; beyond that, every second one of the older goes."""
    report_to: tuple[ReportTo, ...] = ()
    """Loggers beside metrics.jsonl, which is always written."""

    def __post_init__(self) -> None:
        least = {
            "steps": 1,
            "prompts_per_step": 1,
            "save_every": 1,
            "keep_checkpoints": 1,
            "eval_every": 0,
            "eval_prompts": 1,
            "eval_samples": 1,
            "record_rollouts_every": 0,
            "keep_rollouts": 2,
        }
        for key, value in least.items():
            if getattr(self, key) < value:
                raise ConfigError(f"{key} = {getattr(self, key)} is out of range; it must be at least {value}")
        self.model.refuse_url("RL moves the policy's weights and trains on the very tokens that it sampled")
        if self.sampling.temperature == 0:
            raise ConfigError("sampling.temperature = 0 makes all samples of a group equal; set it to 1.0")
