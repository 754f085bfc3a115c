"""prmkit: process rewards for LLM reasoning. Importing this package loads no torch."""

__version__ = "0.1.0"
