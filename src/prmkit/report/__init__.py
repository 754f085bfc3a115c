"""One self-contained HTML page about one or several runs, and its data as JSON beside it."""

from __future__ import annotations

from prmkit.report.page import write_report

__all__ = ["write_report"]
