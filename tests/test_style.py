"""Hold the code to ruff and the package to mypy, both as pyproject.toml configures them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def output_of(*command: str) -> str:
    """Run a module of Python in the repository; return nothing if it has nothing to complain of."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=1800
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_ruff_has_no_complaint():
    pytest.importorskip("ruff")
    assert output_of("ruff", "check", ".") == ""


def test_every_file_is_formatted():
    pytest.importorskip("ruff")
    assert output_of("ruff", "format", "--check", ".") == ""


@pytest.mark.slow
def test_the_types_of_the_package_are_right():
    pytest.importorskip("mypy")
    assert output_of("mypy") == ""
