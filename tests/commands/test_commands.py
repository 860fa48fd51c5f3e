"""The commands as a whole: their list, and their help."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

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
    command = [sys.executable, "-m", "irnet_hpc", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


# ------------------------------------------------------------------------------------------------------------- the list


def test_the_list_has_every_command_and_an_example_of_each():
    assert set(COMMANDS) == {*FOLDERS, "tensorboard", "completion"}
    for name, command in COMMANDS.items():
        assert f"python -m irnet_hpc.{name} {command.example}" in listing()


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_is_one_that_its_command_takes(name, parsers):
    parsers[name].parse_args(shlex.split(COMMANDS[name].example))
    named = re.findall(r"jobs/\S+", COMMANDS[name].example)
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_at_least_three_calls_of_its_command(name, parsers):
    calls = re.findall(
        rf"^ *(?:.*[|] |horovodrun .*|mpirun .*)?python -m irnet_hpc\.{name}\b",
        parsers[name].description,
        re.M,
    )
    assert len(calls) >= 3


def test_the_list_needs_nothing_but_python():
    program = "import sys, irnet_hpc.__main__; print(sorted({'numpy', 'yaml', 'torch', 'h5py'} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_command_is_started_in_place_of_the_list_with_its_own_status():
    done = run("pack", "--source", "oqdm")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown source 'oqdm' (did you mean 'oqmd'?)")
    assert run("pack", "--help").stdout.startswith("usage: python -m irnet_hpc.pack")


NUMBER_OF_A_FILE = """
import sys
from irnet_hpc.console import exit_status
sys.exit(exit_status(lambda: print("said") or open(sys.argv[1], "w").fileno()))
"""


def test_a_command_that_is_started_without_standard_streams_gives_their_numbers_to_no_file(
    tmp_path,
):
    """Its exit status is the number of the first file that it opens: after 0, 1 and 2, to which libraries write."""
    command = [sys.executable, "-c", NUMBER_OF_A_FILE, str(tmp_path / "file")]
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], cwd=ROOT, timeout=600
    )
    assert closed.returncode == 3 and (tmp_path / "file").read_text() == ""


def test_a_command_that_does_not_exist_is_one_sentence():
    with pytest.raises(
        UserError, match=r"unknown command 'trian' \(did you mean 'train'\?\); known: aggregate, "
    ):
        main(["trian"])


# ---------------------------------------------------------------------------------------------------------------- sites


@pytest.mark.parametrize(
    "path", sorted((ROOT / "env/sites").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_site_that_is_shipped_can_be_read_and_says_whether_it_was_run(path):
    assert read_site(str(path)).partition
    comment = " ".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert "Run: " in comment or "Not run" in comment
    shell = path.with_suffix(".sh")
    assert subprocess.run(["bash", "-n", shell], capture_output=True, text=True).stderr == ""
