"""Who may import whom, what lies where, and that every command answers --help on a machine that has next to nothing."""

import ast
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "irnet_hpc"

# What may know torch.
NETWORK = (
    *("dropout", "normalisation", "model", "micro_batch", "comm", "allreduce", "joint", "scaling", "staging", "stream"),
    *("data", "evaluation", "checkpoint", "scores", "folder", "finished", "origin"),
    *(
        "replicas",
        "epochs_bar",
        "step",
        "training",
        "tabular",
        "classical",
        "specification",
        "outcome",
        "networks",
        "train",
        "estimator",
    ),
)

# Data flows down; a module imports only from above itself. A new module takes its place here and in docs/design.md.
ORDER = (
    *("errors", "files", "answering", "workers", "launch", "memory", "ranks", "properties"),
    *("formulas", "crystals", "materials", "splits", "raw_table", "raw_structures", "alloys", "sources", "loading"),
    *("download", "catalogue"),
    *("magpie", "ordered", "voronoi", "ward2017", "homology", "features", "selection", "store", "accounting"),
    *("architectures", "grids", "recipes"),
    *("parts", "packing", "pack"),
    *("schedules", "runs", "process", "deadline", "lease", "holding", "bundles"),
    *NETWORK,
    *(
        "yaml_table",
        "resources",
        "matrix_packs",
        "matrix_origins",
        "matrix",
        "journal",
        "scheduler",
        "traces",
        "ledger",
        "interconnects",
        "costs",
        "estimates",
        "jobs",
        "sharing",
        "sites",
        "submission",
        "reconcile",
        "cells_bar",
        "running",
        "prune",
        "standing",
        "sweep",
    ),
    *("statistics", "results", "grouping", "gaps", "cells", "tables", "predictions", "typeset", "rendering"),
    *("differences", "significance", "ensembles", "optimism", "series", "curves", "published", "tasks", "depths"),
    *("representations", "spent", "rankings", "diagnostics", "charts", "report", "document", "exported"),
    *("periodic", "markup", "inline", "illustrations", "summary", "overview", "webpage", "aggregate"),
    *("spaces", "candidates", "members", "domain", "calibration", "held_out", "screening", "committee", "choice"),
    *("listing", "predict", "model_card", "export", "tensorboard"),
    *("doctor", "completion"),
)
TRAINING = {*NETWORK, "members", "committee", "export"}
# library -> the only modules that may name it, at their top or within a function
ONLY_IN = {
    "h5py": {"store"},
    "torch": TRAINING | {"doctor"},
    "safetensors": TRAINING,
    "horovod": {"comm", "doctor"},
    "mpi4py": {"ranks", "doctor"},
    "submitit": {"jobs", "submission"},
    "matplotlib": {"charts", "report", "inline", "illustrations"},
    "sklearn": {"classical", "estimator"},
    "tabm": {"tabular"},
    "matminer": {"alloys", "magpie", "download"},
    "requests": {"download"},
    "pymatgen": {"formulas", "magpie"},
    "gudhi": {"homology"},
    "onnx": {"export"},
    "onnxruntime": {"export"},
    "shtab": {"completion"},
}
# what no module may import at its top: it is absent on some machines, or slow to come and rarely needed
LAZY = {
    *("horovod", "mpi4py", "submitit", "matplotlib", "matminer", "pymatgen", "pandas", "scipy", "sklearn", "gudhi"),
    *("requests", "tabm", "onnx", "onnxruntime", "onnxscript", "shtab"),
}
TOP_LEVEL = {
    *("irnet_hpc", "jobs", "slurm", "tests", "env", "docs", "benchmarks", ".ci", ".gitignore"),
    *("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md"),
}


@functools.cache
def imports(path: Path, whole: bool = True) -> frozenset[str]:
    """What a file imports, dotted; with `whole` false only when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if whole or not (lazy or typing):
            stack += ast.iter_child_nodes(node)
    return frozenset(found)


def files() -> list[tuple[str, Path]]:
    """(module, file) of the package; a file of a subpackage counts as the subpackage."""
    found = [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in sorted(PACKAGE.rglob("*.py"))]
    return [(module, path) for module, path in found if module not in ("__init__", "__main__")]


def siblings(dotted: frozenset[str]) -> set[str]:
    return {name.split(".")[1] for name in dotted if name.startswith("irnet_hpc.")} & set(ORDER)


def reached(module: str, whole: bool) -> set[str]:
    """Libraries that a module imports, itself or through other modules of ours."""
    found, to_do, done = set(), {module}, set()
    while to_do:
        done.add(name := to_do.pop())
        for other, path in files():
            if other == name:
                dotted = imports(path, whole)
                found |= {entry.partition(".")[0] for entry in dotted}
                to_do |= siblings(dotted) - done
    return found


def commands() -> list[str]:
    return [module for module, path in files() if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")]


def test_every_module_has_its_place():
    assert {module for module, _ in files()} == set(ORDER)
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize(("module", "path"), files(), ids=lambda value: value if isinstance(value, str) else "")
def test_data_flows_down(module, path):
    below = set(ORDER[ORDER.index(module) + 1 :])
    assert not siblings(imports(path)) & below


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_named_only_where_it_belongs(library):
    users = {module for module, path in files() if any(re.match(rf"{library}(\.|$)", name) for name in imports(path))}
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize(
    "module", ["sources", "features", "selection", "store", "pack", "matrix", "ledger", "estimates", "aggregate"]
)
def test_packing_planning_and_aggregating_never_reach_torch(module):
    assert not reached(module, whole=True) & {"torch", "safetensors", "horovod"}
    assert module == "pack" or "mpi4py" not in reached(module, whole=True)


def test_tables_need_no_hdf5():
    assert not reached("aggregate", whole=False) & {"h5py", "numpy", "matplotlib"}


@pytest.mark.parametrize("module", ORDER)
def test_what_is_slow_or_may_be_absent_is_imported_where_it_is_used(module):
    # A scikit-learn estimator is a class of scikit-learn's, so its module cannot do without.
    assert not reached(module, whole=False) & LAZY - ({"sklearn", "scipy"} if module == "estimator" else set())


@pytest.mark.parametrize("command", commands())
def test_help_needs_no_horovod_no_mpi_and_nothing_slow(command):
    absent = LAZY | (set() if command in TRAINING else {"torch", "safetensors"})
    code = f"""
import runpy, sys
class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {sorted(absent)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent)
sys.argv = ["{command}", "--help"]
runpy.run_module("irnet_hpc.{command}", run_name="__main__", alter_sys=True)
"""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd="/", timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert f"irnet_hpc.{command}" in done.stdout


def test_the_repository_is_laid_out_as_promised():
    fixed = ("irnet_hpc", "jobs", "slurm", "tests", "env", "setup.cfg", "README.md")
    assert [name for name in fixed if not (REPOSITORY / name).exists()] == []
    listing = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    tracked = listing.stdout.splitlines()
    assert {path.partition("/")[0] for path in tracked} <= TOP_LEVEL
    assert [path for path in tracked if path.startswith("jobs/") and not path.endswith((".yaml", ".md"))] == []
    assert [path for path in tracked if path.startswith("slurm/") and not path.endswith((".sh", ".md"))] == []


def test_a_helper_lives_with_its_caller():
    names = {path.stem for path in PACKAGE.rglob("*.py")}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc", "base", "config"}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/design.md"])
def test_files_that_the_pages_name_exist(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w./<-])((?:irnet_hpc|tests|env|jobs|slurm|docs|benchmarks)/[\w./-]*\w)", text))
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []


def test_the_design_lists_every_module_in_order():
    text = (REPOSITORY / "docs" / "design.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^(\w+)(?:/\*)?\.py {2,}\w", text, flags=re.MULTILINE)) == ORDER


def test_the_lines_that_newcomers_look_for_are_where_contributing_says():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = re.findall(r"\| `(irnet_hpc/\w+\.py)`, `([^`]+)` \|", text)
    assert len(lines) == 3
    assert [line for path, line in lines if line not in (REPOSITORY / path).read_text(encoding="utf-8")] == []
