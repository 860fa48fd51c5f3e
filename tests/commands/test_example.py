"""Run the program of docs/example.md, and check that it shows every name of the library."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import irnet_hpc

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/example.md").read_text(encoding="utf-8")
PROGRAM = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S))


def test_the_example_uses_every_name_of_the_library():
    imported = re.findall(r"^from irnet_hpc import (.+)$", PROGRAM, re.M)
    names = {name.strip() for line in imported for name in line.split(",")}
    assert names == set(irnet_hpc.__all__)


@pytest.mark.slow
def test_the_example_runs_and_leaves_what_it_promises(tmp_path):
    """As a program in an empty folder, where every number can be held to the made-up rule."""
    program = tmp_path / "example.py"
    program.write_text(PROGRAM, encoding="utf-8")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("IRNET_", "SLURM_"))
    }
    done = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "results").rglob("result.json"))) == 3
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert "(2, 145)" in done.stdout and "(1, 271)" in done.stdout
