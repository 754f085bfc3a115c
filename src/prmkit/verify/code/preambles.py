"""What the official harnesses of data sets put before a program, by name.

Published figures are made with these lines, and many right programs do not load without them: they use `Counter` or
`math.floor` and import nothing. The order matters: later lines take names back from earlier ones, such as `pow` and `open`
(builtins again after `math` and `io`) or `datetime` and `copy` (the modules again).

The text under a name never changes, since prompts and results hold the name: another text gets another name.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Mapping
from types import MappingProxyType

from prmkit.verify.code.source import parse

_MODULES = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json"
)


def _everything(recursion_limit: int) -> str:
    """Every name of many modules, then of `builtins` and `typing`, then the modules themselves."""
    stars = [f"from {name} import *" for name in (*_MODULES.split(), "builtins", "typing")]
    whole = [f"import {name}" for name in _MODULES.split()]
    return "\n".join([*stars, *whole, f"sys.setrecursionlimit({recursion_limit})", ""])


_NUMPY = "try:\n    import {}\nexcept ImportError:\n    pass\n"
"""APPS and DeepSeek import it. The sandbox has it only where `packages` holds it."""

PREAMBLES: Mapping[str, str] = MappingProxyType(
    {
        # LiveCodeBench, lcb_runner/evaluation/testing_util.py: for programs that read and for functions
        "livecodebench": _everything(50_000),
        # PRIME, verl's reward_score/prime_code/testing_util.py: the same with another limit
        "prime": _everything(600_000),
        # APPS, eval/testing_util.py; TACO, metrics/testing_util.py. The last line is theirs for programs that read.
        "apps": "\n".join(
            [
                "import sys, time, itertools, collections, math, fractions, random, heapq",
                "from itertools import accumulate, combinations, permutations, product",
                "from collections import ChainMap, Counter, OrderedDict, defaultdict, deque",
                "from functools import lru_cache",
                "from math import ceil, cos, exp, fabs, floor, gcd, log, log2, sin, sqrt, tan",
                "from typing import List, Tuple",
                _NUMPY.format("numpy as np") + "from heapq import *",
                "stdin, stdout = sys.stdin, sys.stdout",
                "",
            ]
        ),
        # DeepSeek-Coder, Evaluation/LeetCode/human_eval/evaluation.py, which PRIME's evaluation uses too
        "deepseek-leetcode": "\n".join(
            [
                "import math, re, sys, copy, datetime, itertools, collections, heapq, functools, hashlib, string",
                _NUMPY.format("numpy, numpy as np") + "from typing import *",
                "from collections import *",
                "from functools import *",
                "",
            ]
        ),
    }
)


def preamble_source(text: str) -> str:
    """The source that a name stands for; any other text is source itself."""
    return PREAMBLES.get(text.strip(), text)


@functools.cache
def modules_of(source: str) -> tuple[str, ...]:
    """Modules of the standard library that a known preamble imports; none of any other source."""
    if source not in PREAMBLES.values():
        return ()
    names: set[str] = set()
    for node in parse(source).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return tuple(sorted(names & sys.stdlib_module_names))
