"""The shape of the package: layers, lean imports, shipped configurations, sizes."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from prmkit.cli.main import PRESETS, VERBS
from prmkit.cli.parse import load, parse

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "prmkit"
CONFIGS = sorted((ROOT / "configs").rglob("*.toml"))

LAYERS = [
    {"data", "protocols", "config", "config_io", "errors"},
    {"ops"},
    {"models", "verify", "tasks"},
    {"search", "annotate", "evaluate", "doctor", "curate"},
    {"rl", "train", "agents"},
    {"engines"},
    {"cli", "serve", "report", "__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
COMPOSITION_ROOTS = {"cli", "serve"}


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node` except those that only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.orelse:
                yield from (statement, *runtime_nodes(statement))
        else:
            yield from (child, *runtime_nodes(child))


def imported_modules(source: str, package: str) -> set[str]:
    """Full names that `source`, a module inside `package`, imports when it runs."""
    found: set[str] = set()
    for node in runtime_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(name, package) if node.level else name
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def rooms(source: str, package: str) -> set[str]:
    """The rooms of prmkit that `source` imports from; `prmkit.__version__` and the like belong to none."""
    parts = [name.split(".") for name in imported_modules(source, package)]
    return {part[1] for part in parts if part[0] == "prmkit" and len(part) > 1 and not part[1].startswith("__")}


def test_the_import_reader_sees_every_form_and_skips_types() -> None:
    source = """
import prmkit.ops.masked
from prmkit import errors, __version__
from ..data.types import Prompt
from . import step
if TYPE_CHECKING:
    from prmkit.cli import main
else:
    import prmkit.verify
def later():
    from prmkit.engines.local import sampler
"""
    assert rooms(source, "prmkit.rl") == {"ops", "errors", "data", "rl", "verify", "engines"}


def imports_by_file() -> dict[Path, set[str]]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        package = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
        found[path.relative_to(PACKAGE)] = rooms(path.read_text(encoding="utf-8"), package)
    return found


def room_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def test_every_room_has_a_layer() -> None:
    assert {room_of(path) for path in imports_by_file()} - set(LEVEL) == {"__init__"}


def test_imports_point_down() -> None:
    upward = [
        f"{path} imports {target}"
        for path, targets in imports_by_file().items()
        for target in targets
        if path != Path("__init__.py") and LEVEL[target] > LEVEL[room_of(path)]
    ]
    assert upward == []


def test_rooms_of_one_layer_do_not_import_each_other_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for path, targets in imports_by_file().items():
        graph.setdefault(room_of(path), set()).update(targets - {room_of(path)})
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError with the circle
    assert order.index("errors") < order.index("data") < order.index("cli")


def test_engines_are_imported_by_the_composition_root_only() -> None:
    users = {room_of(path) for path, targets in imports_by_file().items() if "engines" in targets}
    assert users <= COMPOSITION_ROOTS | {"engines", "__init__"}  # prmkit.load_prm is put together when it is asked for


@pytest.mark.parametrize(
    "module",
    [
        "prmkit",
        "prmkit.data",
        "prmkit.data.types",
        "prmkit.protocols",
        "prmkit.config",
        "prmkit.config_io",
        "prmkit.errors",
        "prmkit.rl.algorithm",
        "prmkit.rl.config",
        "prmkit.verify",
        "prmkit.cli.main",
    ],
)
def test_values_and_configuration_load_no_torch(module: str) -> None:
    code = f"import sys, {module}; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_the_real_run_has_its_configuration() -> None:
    assert ROOT / "configs" / "rl" / "gsm8k_smollm2.toml" in CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shipped_configurations_resolve(path: Path) -> None:
    verb = path.relative_to(ROOT / "configs").parts[0].replace("_", " ")
    presets = load(PRESETS[verb]) if verb in PRESETS else None
    config_class = load(VERBS[verb][0])
    assert isinstance(parse(verb, config_class, [str(path)], presets).config, config_class)


@pytest.fixture(scope="module")
def check_shape() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_shape", ROOT / "scripts" / "check_shape.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def long_function(lines: int) -> str:
    return "def f():\n" + "    x = 1\n" * (lines - 1)


def test_sizes_are_counted_to_the_line(check_shape: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("x = 1\n" * 340 + long_function(60))
    assert list(check_shape.problems(path)) == []
    path.write_text("x = 1\n" * 340 + long_function(61))
    assert list(check_shape.problems(path)) == [
        f"{path}: 401 lines, at most 400",
        f"{path}:341: f has 61 lines, at most 60",
    ]


def test_an_exception_of_size_needs_its_reason(check_shape: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text('"""Table.\n\nShape exception: one long table.\n"""\n' + long_function(61))
    assert check_shape.main([str(tmp_path)]) == 0
    path.write_text('"""Table.\n\nShape exception:\n"""\n' + long_function(61))
    assert check_shape.main([str(tmp_path)]) == 1
