"""Hold what `init` lays down, and that the scripts work without a clone."""

import os
import subprocess
import sys
from pathlib import Path

from irnet_hpc.sweep import cli
from irnet_hpc.sweep.init import lay_down
from irnet_hpc.sweep.matrix.matrix import read_matrix
from tests.sweep.stand_ins import ROOT


def test_init_lays_down_what_a_clone_has_and_overwrites_nothing(tmp_path, capsys):
    mine = tmp_path / "jobs/full.yaml"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert cli.main(["init", str(tmp_path)]) == 0
    assert f"kept {mine}" in capsys.readouterr().out
    assert mine.read_text() == "mine"
    for folder, pattern in (("jobs", "*.yaml"), ("slurm", "*.sh"), ("env/sites", "*")):
        names = {path.name for path in (ROOT / folder).glob(pattern)}
        assert {path.name for path in (tmp_path / folder).iterdir()} == names
    assert os.access(tmp_path / "slurm/train.sh", os.X_OK)
    assert read_matrix(tmp_path / "jobs/quickstart.yaml", tmp_path).cells
    written, kept = lay_down(tmp_path)
    assert not written and mine in kept


def test_a_script_runs_in_an_environment_that_has_the_package(tmp_path):
    lay_down(tmp_path)
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    script = ["bash", "slurm/aggregate.sh", "none", "--json"]
    done = subprocess.run(
        script,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "none" in done.stderr, done.stderr
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "environment" in done.stderr


def test_a_site_of_the_folder_is_read_by_a_script(tmp_path):
    lay_down(tmp_path)
    (tmp_path / "env/sites/mine.sh").write_text("false; export HERE=$UNSET$$\necho site read >&2\n")
    done = subprocess.run(
        ["bash", "slurm/aggregate.sh", "none"],
        cwd=tmp_path,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "IRNET_SITE": "mine",
        },
        capture_output=True,
        text=True,
    )
    assert "site read" in done.stderr and done.returncode == 2
