"""Hold the layout of the package: who imports whom, where libraries are named, what is offered."""

import ast
import functools
import graphlib
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "irnet_hpc"
# A folder (or file of the top level) imports only from those before it.
ORDER = (
    *("errors", "files", "console"),
    *("distributed", "data", "features", "models", "runs"),
    *("pack", "train", "sweep", "predict", "aggregate", "export", "fitting", "doctor"),
)
COMMANDS = ("pack", "train", "sweep", "aggregate", "predict", "export", "doctor")
# Commands of one file each, above all folders.
SINGLE = ("tensorboard", "completion")
# Names of the old layout that pickles still hold.
PICKLED = ("jobs", "estimator")
# library -> the only folders that may name it, at the top of a file or within a function
ONLY_IN = {
    "h5py": {"pack"},
    "torch": {"distributed", "models", "train", "predict", "export", "doctor"},
    "safetensors": {"train"},
    "skops": {"train"},
    "horovod": {"distributed", "doctor"},
    "mpi4py": {"distributed", "doctor"},
    "submitit": {"sweep"},
    "matplotlib": {"aggregate"},
    "sklearn": {"features", "train", "predict"},
    "tabm": {"train"},
    # In aggregate only matbench/record.py names it, which runs in an environment of its own.
    "matminer": {"data", "features", "aggregate"},
    "requests": {"data"},
    "pymatgen": {"data", "features"},
    "gudhi": {"features"},
    "openpyxl": {"data"},
    "pyarrow": {"data"},
    "pint": {"data"},
    "ase": {"data"},
    "onnx": {"export"},
    "onnxruntime": {"export"},
    "skl2onnx": {"export"},
    "shtab": {"completion"},
    "tensorboardX": {"tensorboard"},
    "rich": {"sweep"},
    "bokeh": {"aggregate"},
    "matbench": {"aggregate"},
}
# Nothing may import these at the top of a file: absent on some machines, or slow and rarely needed.
LAZY = {
    *("horovod", "mpi4py", "submitit", "matplotlib", "matminer", "pymatgen", "pandas", "scipy"),
    *("sklearn", "gudhi", "requests", "tabm", "onnx", "onnxruntime", "onnxscript", "shtab"),
    *(
        "tensorboardX",
        "rich",
        "openpyxl",
        "pyarrow",
        "pint",
        "bokeh",
        "matbench",
        "skops",
        "skl2onnx",
        "ase",
    ),
}
TOP_LEVEL = {
    *("irnet_hpc", "jobs", "slurm", "tests", "env", "docs", "benchmarks", ".ci", ".gitignore"),
    *(
        "setup.cfg",
        "setup.py",
        "MANIFEST.in",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "CHANGELOG.md",
    ),
    *("CONTRIBUTING.md", "mkdocs.yml", "findings"),
}
FOLDERS = [name for name in ORDER if (PACKAGE / name).is_dir()]
FILES = sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    """Return the folder below the package that a file belongs to, or its own name at the top."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(path) for path in FILES}


@functools.cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path: Path, whole: bool = True) -> frozenset[str]:
    """List the dotted names that a file imports; without `whole` only those it needs to load."""
    found: set[str] = set()
    stack: list[ast.AST] = [tree(path)]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not typing and (whole or not lazy):
            stack += ast.iter_child_nodes(node)
    return frozenset(found)


def modules_imported(path: Path, whole: bool = True) -> set[str]:
    """List our own modules among the imports of a file."""
    names = {name for name in imports(path, whole) if name.startswith("irnet_hpc.")}
    return {name if name in MODULES else name.rpartition(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_a_folder_imports_only_from_those_before_it(path):
    here = place(path)
    if here in ("__init__", "__main__", *SINGLE, *PICKLED):
        return
    taken = {name.split(".")[1] for name in modules_imported(path) if name != "irnet_hpc"} - {here}
    assert taken <= set(ORDER[: ORDER.index(here)])


def test_no_files_import_each_other_in_a_circle():
    graph = {dotted(path): modules_imported(path) for path in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the files


def test_every_place_of_the_package_is_in_the_order():
    assert {place(path) for path in FILES} == {*ORDER, *SINGLE, *PICKLED, "__init__", "__main__"}
    assert len(list(PACKAGE.glob("*.py"))) <= 10


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_a_folder_with_a_door_and_a_command_line(command):
    assert (PACKAGE / command / "__main__.py").is_file()
    assert (PACKAGE / command / "cli.py").is_file()


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_named_only_where_it_belongs(library):
    pattern = re.compile(rf"{library}(\.|$)")
    users = {place(path) for path in FILES if any(pattern.match(name) for name in imports(path))}
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_slow_or_optional_libraries_are_imported_where_they_are_used(path):
    # A scikit-learn estimator is a subclass of scikit-learn's: its module cannot wait.
    estimators = ("regressor.py", "transformer.py")
    allowed = {"sklearn", "scipy"} if path.name in estimators else set()
    top = {name.partition(".")[0] for name in imports(path, whole=False)}
    assert not top & LAZY - allowed


# The only files that parse options and print: command lines, and programs of their own, which
# tell another process something.
DOORS = {"cli.py", "options.py", "console.py", "__main__.py", "probes.py"}
DOORS |= {f"{name}.py" for name in (*SINGLE, *PICKLED)}
DOORWAYS = [path for path in FILES if path.name not in DOORS]
MAX_PARAMETERS = 6


@pytest.mark.parametrize("path", DOORWAYS, ids=dotted)
def test_only_the_command_line_parses_options_and_prints(path):
    calls = (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))
    assert "argparse" not in {name.partition(".")[0] for name in imports(path)}
    assert [call.lineno for call in calls if ast.unparse(call.func) == "print"] == []


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_no_function_has_more_than_six_parameters(path):
    """`self` and `cls` do not count; the calls of the library take their options as keywords.

    Triton's kernels take every tensor and number by itself.
    """
    library = attached(PACKAGE / "__init__.py")
    long: list[str] = []
    exempt: set[int] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef) and node.name in library:
            exempt |= {id(child) for child in node.body if getattr(child, "name", "") == "__init__"}
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if "triton.jit" in map(ast.unparse, node.decorator_list):
            continue
        given = node.args
        names = [one.arg for one in [*given.posonlyargs, *given.args, *given.kwonlyargs]]
        names += [one.arg for one in (given.vararg, given.kwarg) if one]
        n_parameters = len([name for name in names if name not in ("self", "cls")])
        if n_parameters > MAX_PARAMETERS and node.name not in library and id(node) not in exempt:
            long.append(f"{node.name} in line {node.lineno}")
    assert long == []


@functools.cache
def attached(path: Path) -> frozenset[str]:
    """Return the names that a file offers by `lazy_loader.attach`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.keyword) and node.arg == "submod_attrs":
            modules = ast.literal_eval(node.value)
            return frozenset(name for names in modules.values() for name in names)
    return frozenset()


def face(folder: str) -> frozenset[str]:
    """Return the names in `__all__` of a folder."""
    return attached(PACKAGE / folder / "__init__.py")


def taken_from_others(path: Path) -> set[tuple[str, str]]:
    """List (folder, name) of what a file takes from the modules of other folders.

    A module that is imported whole counts by the names that are read from it.
    """
    taken, whole = set(), {}
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        for alias in node.names:
            parts = [*node.module.split("."), alias.name]
            if parts[0] != "irnet_hpc" or len(parts) < 3 or parts[1] not in FOLDERS:
                continue
            # A command of one file asks the others' command lines for their parsers.
            if parts[1] == place(path) or (
                place(path) in SINGLE and {"cli", "options"} & set(parts)
            ):
                continue
            if ".".join(parts) in MODULES:
                whole[alias.asname or alias.name] = parts[1]
            else:
                taken.add((parts[1], alias.name))
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in whole:
            taken.add((whole[ast.unparse(node.value)], node.attr))
    return taken


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_what_a_folder_takes_from_another_is_in_its_face(path):
    taken = taken_from_others(path)
    assert sorted(f"{folder}: {name}" for folder, name in taken if name not in face(folder)) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_names_of_a_face_exist(folder):
    package = importlib.import_module(f"irnet_hpc.{folder}")
    assert [name for name in face(folder) if not hasattr(package, name)] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_name_of_a_face_is_also_a_module(folder):
    """Else `from folder import name` gives one or the other, by what was imported before."""
    package = importlib.import_module(f"irnet_hpc.{folder}")
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert sorted(modules.intersection(face(folder))) == []


def run_without(absent: set[str], command: str, *arguments: object, cwd: str | Path = "/"):
    """Run a command in a Python that cannot import `absent`."""
    code = f"""
import runpy, sys
class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {sorted(absent)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent)
sys.argv = ["{command}", *{[str(argument) for argument in arguments]}]
runpy.run_module("irnet_hpc.{command}", run_name="__main__", alter_sys=True)
"""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=cwd
    )


@pytest.mark.parametrize("command", [*COMMANDS, *SINGLE])
def test_help_needs_no_horovod_no_mpi_and_nothing_slow(command):
    absent = LAZY | (set() if command == "export" else {"torch", "safetensors"})
    done = run_without(absent, command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"irnet_hpc.{command}" in done.stdout


def test_packing_planning_and_tables_run_without_torch(tmp_path):
    absent = {"torch", "safetensors", "horovod", "mpi4py", "matplotlib"}
    done = run_without(
        absent, "pack", "--source", "alloys", "--rows", "50", "--name", "a-magpie", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    done = run_without(absent, "sweep", "plan", REPOSITORY / "jobs/smoke.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "results").mkdir()
    done = run_without(absent | {"h5py", "numpy"}, "aggregate", "results", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr


def test_the_repository_is_laid_out_as_promised():
    fixed = ("irnet_hpc", "jobs", "slurm", "tests", "env", "setup.cfg", "README.md")
    assert [name for name in fixed if not (REPOSITORY / name).exists()] == []
    listing = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    tracked = listing.stdout.splitlines()
    assert {path.partition("/")[0] for path in tracked} <= TOP_LEVEL
    assert [p for p in tracked if p.startswith("jobs/") and not p.endswith((".yaml", ".md"))] == []
    assert [p for p in tracked if p.startswith("slurm/") and not p.endswith((".sh", ".md"))] == []


def test_no_file_is_a_drawer():
    names = {path.stem for path in FILES}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc", "base", "config"}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/design.md"])
def test_files_that_the_pages_name_exist(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    folders = "irnet_hpc|tests|env|jobs|slurm|docs|benchmarks"
    named = set(re.findall(rf"(?<![\w./<-])((?:{folders})/[\w./-]*\w)", text))
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []


def test_the_lines_that_newcomers_look_for_are_where_contributing_says():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = re.findall(r"\| `(irnet_hpc/[\w/]+\.py)`, `([^`]+)` \|", text)
    assert len(lines) == 3
    for path, line in lines:
        assert line in (REPOSITORY / path).read_text(encoding="utf-8")
