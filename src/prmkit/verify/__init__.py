"""Verifiers: what says whether a response is right. Imports neither torch nor sympy."""

from prmkit.verify.answers import extract_answer
from prmkit.verify.compose import ComposedVerifier, MathVerifier, make_verifier, verifier_identity
from prmkit.verify.math import judge
from prmkit.verify.qa import QAVerifier
from prmkit.verify.user_function import FunctionVerifier

__all__ = [
    "ComposedVerifier",
    "FunctionVerifier",
    "MathVerifier",
    "QAVerifier",
    "extract_answer",
    "judge",
    "make_verifier",
    "verifier_identity",
]
