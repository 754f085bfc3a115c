"""The errors that a user can cause or meet. Each message says what, where and what to do."""

from __future__ import annotations


class PrmkitError(Exception):
    """Base of every error that prmkit raises on purpose."""


class ConfigError(PrmkitError, ValueError):
    """A configuration that cannot run: names the key, its value and the fix."""


class DataError(PrmkitError, ValueError):
    """Input data that cannot be used: names the file and line, or the prompt."""


class ModelError(PrmkitError, ValueError):
    """A model folder or tokenizer that cannot be used: names the path and what is missing."""


class SamplingError(PrmkitError, ValueError):
    """A request that the sampler cannot serve, such as a prompt longer than the context."""


class VerifierError(PrmkitError, RuntimeError):
    """The verifier itself failed as a whole (a single failing item is a `Verdict`, never this)."""


class TrainingError(PrmkitError, RuntimeError):
    """Training cannot go on: a loss that is not finite, or no group that passes the filter."""


class CheckpointError(PrmkitError, OSError):
    """A checkpoint could not be written or read; earlier checkpoints are untouched."""
