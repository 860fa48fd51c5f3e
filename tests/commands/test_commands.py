"""Test the commands as a whole: their list, how they are started, the sites that are shipped."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import irnet_hpc
from irnet_hpc import completion
from irnet_hpc.__main__ import COMMANDS, listing, main
from irnet_hpc.errors import UserError
from irnet_hpc.sweep.matrix.sites import read_site
from tests.test_layout import COMMANDS as FOLDERS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def parsers():
    return completion.parsers()


def run(*arguments: str) -> subprocess.CompletedProcess:
    """Run `python -m irnet_hpc` with these arguments."""
    command = [sys.executable, "-m", "irnet_hpc", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


def loaded_by(statement: str) -> set[str]:
    """Return the names of the modules that a new Python has loaded after a statement."""
    program = f"import sys; {statement}; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_list_has_every_command_and_an_example_of_each():
    assert set(COMMANDS) == {*FOLDERS, "tensorboard", "completion"}
    for name, command in COMMANDS.items():
        assert f"python -m irnet_hpc.{name} {command.example}" in listing()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_parses_and_names_files_that_exist(name, parsers):
    parsers[name].parse_args(shlex.split(COMMANDS[name].example))
    named = re.findall(r"jobs/\S+", COMMANDS[name].example)
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("statement", ["import irnet_hpc", "import irnet_hpc.__main__"])
def test_the_package_and_its_list_load_nothing_heavy(statement):
    heavy = {"numpy", "yaml", "torch", "h5py", "pandas", "scipy", "sklearn", "matplotlib"}
    assert loaded_by(statement) & heavy == set()


def test_a_name_of_the_library_loads_only_what_it_needs():
    heavy = {"torch", "sklearn", "h5py", "pandas"}
    assert loaded_by("from irnet_hpc import UserError") & heavy == set()


def test_a_command_replaces_the_list_and_keeps_its_exit_status():
    done = run("pack", "--source", "oqdm")
    assert done.returncode == 2
    assert "oqmd" in done.stderr  # the nearest name
    assert run("pack", "--help").stdout.startswith("usage: python -m irnet_hpc.pack")


def test_an_unknown_command_is_a_user_error_with_the_nearest_name():
    with pytest.raises(UserError, match="train"):
        main(["trian"])


def test_the_version_is_that_of_the_package():
    assert run("--version").stdout.strip() == irnet_hpc.__version__


@pytest.mark.parametrize(
    "path", sorted((ROOT / "env/sites").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_site_that_is_shipped_can_be_read(path):
    assert read_site(str(path)).partition
    shell = path.with_suffix(".sh")
    assert subprocess.run(["bash", "-n", shell], capture_output=True, text=True).stderr == ""
