"""Numbers with error bars: accuracy of a policy, and whether process rewards find the first wrong step. No torch."""

from prmkit.evaluate.accuracy import Accuracy, Interval, clustered, pass_at_k, wilson
from prmkit.evaluate.config import EvalConfig
from prmkit.evaluate.localisation import (
    Localisation,
    bootstrap_interval,
    first_error_auc,
    first_error_hit_rate,
    hit_rate_chance,
    localise,
    within_rollout_auc,
)
from prmkit.evaluate.run import (
    EvaluationResult,
    Question,
    evaluate_policy,
    evaluate_questions,
    result_json,
    write_result,
)

__all__ = [
    "Accuracy",
    "EvalConfig",
    "EvaluationResult",
    "Interval",
    "Localisation",
    "Question",
    "bootstrap_interval",
    "clustered",
    "evaluate_policy",
    "evaluate_questions",
    "first_error_auc",
    "first_error_hit_rate",
    "hit_rate_chance",
    "localise",
    "pass_at_k",
    "result_json",
    "wilson",
    "within_rollout_auc",
    "write_result",
]
