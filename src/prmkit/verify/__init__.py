"""Verifiers: what says whether a response is right. Imports neither torch nor sympy."""

from prmkit.verify.answers import extract_answer
from prmkit.verify.compose import FunctionVerifier, MathVerifier, make_verifier
from prmkit.verify.math import judge

__all__ = ["FunctionVerifier", "MathVerifier", "extract_answer", "judge", "make_verifier"]
