"""Files of at most 400 lines, functions of at most 60.

A file may exceed either when its docstring has a line `Shape exception: <reason>`.
Usage: check_shape.py [FOLDER ...]; exits with 1 when something is too long.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
FOLDERS = ("src", "scripts", "benchmarks")


def problems(path: Path) -> Iterator[str]:
    """One line for each thing in `path` that is too long."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source, filename=str(path))
    if re.search(r"^Shape exception: \S", ast.get_docstring(tree) or "", flags=re.MULTILINE):
        return
    lines = len(source.splitlines())
    if lines > MAX_FILE_LINES:
        yield f"{path}: {lines} lines, at most {MAX_FILE_LINES}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"


def main(folders: Sequence[str]) -> int:
    """Print every problem; the exit code says whether there was one."""
    paths = sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
    found = [problem for path in paths for problem in problems(path)]
    print("\n".join(found) or f"{len(paths)} files within their sizes")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or FOLDERS))
