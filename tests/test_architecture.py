"""The tree is the data flow: who imports what, how light imports are, sizes."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "shortlist"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# A module imports only from its own layer and those before it.
LAYERS = [
    {
        *{"errors", "atomic", "backend", "drawing", "interrupts", "lock", "native"},
        *{"options", "outputs", "packages", "page", "processors", "reading"},
    },
    {"data"},
    {"public_data"},
    {"embeddings"},
    {"models"},
    {"recipe"},
    {"evaluation"},
    {"recipe"},
    {"training"},
    {"bundle"},
    {"serving"},
    {"cli"},
]
LAYER_OF = {name: depth for depth, names in enumerate(LAYERS) for name in names}

# The same within data/; files beside the folders count as `root`.
DATA_LAYERS = [
    {"kernels"},
    {"root"},
    {"store"},
    {"load", "read"},
    {"preparation"},
    {"guess", "convert"},
    {"check"},
]
DATA_LAYER_OF = {
    name: depth for depth, names in enumerate(DATA_LAYERS) for name in names
}

# Limits that keep files and functions readable.
FILE_LINES, FUNCTION_LINES, PARAMETERS, FOLDER_FILES = 500, 60, 7, 20

KERAS = {"keras", "keras_rs", "jax", "tensorflow", "torch"}
KERAS_PLACES = re.compile(
    r"embeddings/(?!(inputs|rules|specs|table|storage/table_files"
    r"|host/(host_tables|handles|lookup_call|handle_errors|kernels|reference))\.py).*"
    r"|models/(?!scorers/|options\.py).*"
    r"|training/(?!(runs/(run|run_store|run_index|records)|loop/cost)\.py).*"
    r"|bundle/export\.py"
)
DRAWINGS = {"drawing.py", "data/check/plots.py", "evaluation/pages/plots.py"}
SERVERS = {"starlette", "granian"}
HEAVY = [
    *sorted(KERAS),
    "matplotlib",
    "numpy",
    "onnxruntime",
    "polars",
    "pyarrow",
    "pydantic",
]


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def module_of(path: Path) -> str:
    """Dotted name of a file; that of the package for an `__init__.py`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("shortlist", *parts)).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Full names of everything imported in a file, also lazily or for types only."""
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def import_graph() -> dict[str, set[str]]:
    """The modules of the package that each of them imports."""
    modules = {module_of(path): path for path in SOURCES}
    graph = {}
    for module, path in modules.items():
        names = imports_of(path)
        # A name that is no module is defined in the module before it.
        found = {name if name in modules else name.rpartition(".")[0] for name in names}
        graph[module] = {name for name in found if name in modules and name != module}
    return graph


def cycles_of(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other, each sorted."""
    reached = {}
    for start in graph:
        seen, left = set(), [start]
        while left:
            new = graph[left.pop()] - seen
            seen |= new
            left += new
        reached[start] = seen
    groups = {
        tuple(sorted(other for other in seen if node in reached[other]))
        for node, seen in reached.items()
        if node in seen
    }
    return [list(group) for group in sorted(groups)]


def functions_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions of a file except Typer commands, whose parameters are options."""
    kinds = ast.FunctionDef, ast.AsyncFunctionDef
    found = [node for node in ast.walk(tree_of(path)) if isinstance(node, kinds)]
    if relative(path).startswith("cli/"):
        return [node for node in found if "Annotated" not in ast.unparse(node.args)]
    return found


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    names = [arg.arg for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def layer_of(module: str) -> int:
    name = module.split(".")[1]
    assert name in LAYER_OF, f"shortlist.{name} has no place in LAYERS"
    return LAYER_OF[name]


def data_layer_of(module: str) -> int:
    name = module.split(".")[2]
    return DATA_LAYER_OF.get(name, DATA_LAYER_OF["root"])


def modules_loaded_by(code: str) -> set[str]:
    """Names of all modules loaded in a fresh interpreter after running `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def without_keras(code: str) -> str:
    """`code` in an interpreter where importing a backend fails."""
    return f"import sys\nfor name in {sorted(KERAS)}: sys.modules[name] = None\n{code}"


def packages() -> list[str]:
    places = [path.parent for path in SOURCES if path.name == "__init__.py"]
    inner = [place.relative_to(PACKAGE).parts for place in places if place != PACKAGE]
    return [".".join(("shortlist", *parts)) for parts in inner]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_follow_the_order_of_the_layers(path):
    if path.parent == PACKAGE and path.stem in {"__init__", "__main__"}:
        return
    own = layer_of(
        f"shortlist.{path.relative_to(PACKAGE).parts[0].removesuffix('.py')}"
    )
    for module in imports_of(path):
        if module.startswith("shortlist.") and module != "shortlist.__version__":
            assert layer_of(module) <= own, f"{relative(path)} imports {module}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "data").rglob("*.py")), ids=relative)
def test_imports_within_data_follow_the_flow(path):
    if path.name == "__init__.py" and path.parent.name == "data":
        return
    own = data_layer_of(
        f"shortlist.{relative(path).removesuffix('.py').replace('/', '.')}"
    )
    for module in imports_of(path):
        if module.startswith("shortlist.data."):
            assert data_layer_of(module) <= own, f"{relative(path)} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_third_parties_stay_in_their_packages(path):
    place = relative(path)
    for module in {name.split(".")[0] for name in imports_of(path)}:
        if module in SERVERS:
            assert place.startswith("serving/"), f"{place} imports {module}"
        if module == "matplotlib":
            assert place in DRAWINGS, f"{place} imports matplotlib"
        if module in KERAS:
            assert KERAS_PLACES.fullmatch(place), f"{place} imports {module}"


@pytest.mark.parametrize("package", packages())
def test_no_package_loads_a_backend_when_imported(package):
    assert modules_loaded_by(f"import {package}") & KERAS == set()


def test_the_package_itself_loads_nothing_heavy():
    assert modules_loaded_by("import shortlist") & set(HEAVY) == set()


def test_help_loads_nothing_heavy():
    code = (
        "import contextlib, io, sys\n"
        "from shortlist.cli.main import main\n"
        "sys.argv = ['shortlist', '--help']\n"
        "with contextlib.suppress(SystemExit), "
        "contextlib.redirect_stdout(io.StringIO()):\n"
        "    main()\n"
    )
    assert modules_loaded_by(code) & set(HEAVY) == set()


@pytest.mark.parametrize("package", ["serving", "bundle"])
def test_serving_works_where_no_backend_can_be_imported(package):
    modules = [
        f"shortlist.{relative(path).removesuffix('.py').replace('/', '.')}"
        for path in sorted((PACKAGE / package).rglob("*.py"))
        if path.stem not in {"__init__", "export"}
    ]
    assert modules
    modules_loaded_by(without_keras(f"import {', '.join(modules)}"))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_stay_small_and_say_what_they_are(path):
    assert len(path.read_text().splitlines()) <= FILE_LINES
    assert path.stem not in {"utils", "common", "helpers", "base"}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_functions_are_short_and_have_few_parameters(path):
    for function in functions_of(path):
        assert function.end_lineno is not None
        lines = function.end_lineno - function.lineno + 1
        assert lines <= FUNCTION_LINES, f"{function.name} has {lines} lines"
        count = len(parameters_of(function))
        assert count <= PARAMETERS, f"{function.name} has {count} parameters"


def test_folders_have_few_files():
    counts = Counter(relative(path.parent) for path in SOURCES)
    counts.pop("cli")
    assert {name: n for name, n in counts.items() if n > FOLDER_FILES} == {}


def test_no_file_imports_itself_through_others():
    assert cycles_of(import_graph()) == []


def test_cycles_are_found_in_small_graphs():
    chain = {"a": {"b"}, "b": {"c"}, "c": set()}
    assert cycles_of(chain) == []
    assert cycles_of(chain | {"c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert cycles_of({"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": {"c", "a"}}) == [
        ["a", "b"],
        ["c", "d"],
    ]


def test_the_import_graph_has_lazy_imports_and_imports_for_types():
    graph = import_graph()
    assert "shortlist.public_data.logs" in graph["shortlist.cli.demo"]  # lazy, types
    assert "shortlist.data.load.loader" in graph["shortlist.data"]
    assert "shortlist.data" not in graph["shortlist.data.load.loader"]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_public_names_are_sorted_and_exist(path):
    names = public_names(path)
    assert names == sorted(names)
    if names and not needs_missing_package(path):
        stem = relative(path).removesuffix(".py").removesuffix("__init__").strip("/")
        name = ".".join(["shortlist", *stem.split("/")]) if stem else "shortlist"
        module = importlib.import_module(name)
        assert [n for n in names if not hasattr(module, n)] == []


def public_names(path: Path) -> list[str]:
    for node in tree_of(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def needs_missing_package(path: Path) -> bool:
    """Whether a file needs an extra that is not installed."""
    optional = {*KERAS, *SERVERS, "onnxruntime"}
    wanted = {name.split(".")[0] for name in imports_of(path)} & optional
    return any(importlib.util.find_spec(name) is None for name in wanted)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "native").rglob("*.*")), ids=lambda path: path.name
)
def test_native_sources_know_nothing_of_python_but_the_bindings(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 500
    if path.stem != "bindings" and not path.stem.endswith("_bindings"):
        assert not re.search(r"#include\s*[<\"](nanobind|Python\.h|pybind)", text)
