"""Evaluation by what training saw does not depend on the number of ranks; with real processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.statistics_on_ranks import CASES
from tests.distributed.test_engines import ENVIRONMENT

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "statistics_on_ranks.py"
ROOT = Path(__file__).parents[2]


def taken(out: Path, engine: str, *launcher: str) -> dict:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [*launcher, sys.executable, SCRIPT, engine, out]
    subprocess.run(command, env=ENVIRONMENT | {"PYTHONPATH": path}, check=True, timeout=600)
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return taken(tmp_path_factory.mktemp("alone") / "out.json", "none")["cases"]


@pytest.mark.parametrize(
    ("launcher", "engine", "name"),
    [
        (["mpirun", "-np", "2"], "horovod", "horovod (mpi)"),
        (["mpirun", "-np", "3"], "horovod", "horovod (mpi)"),
        (["horovodrun", "--gloo", "-np", "2"], "horovod", "horovod (gloo)"),
    ],
)
def test_ranks_take_the_statistics_of_one_rank(launcher, engine, name, alone, tmp_path):
    if shutil.which(launcher[0]) is None:
        pytest.skip(f"{launcher[0]} is not installed")
    together = taken(tmp_path / "out.json", engine, *launcher)
    assert (together["engine"], together["size"]) == (name, int(launcher[-1]))
    for case, (_, precision) in CASES.items():
        one, several = alone[case], together["cases"][case]
        tolerance = 1e-9 if precision == "fp64" else 2e-2
        assert several["unusual"] == one["unusual"] == case.startswith("one row"), case
        for what in ("statistics", "outputs"):
            np.testing.assert_allclose(
                several[what], one[what], rtol=tolerance, atol=tolerance, err_msg=case
            )


def test_the_cases_have_units_that_never_varied_and_outputs_of_ordinary_size(alone):
    for case, outcome in alone.items():
        statistics = np.array(outcome["statistics"])
        assert not np.isnan(statistics).any(), case
        assert np.abs(outcome["outputs"]).max() < 10, case
    assert np.ptp(np.delete(alone["one row"]["outputs"], 5)) < 1e-9
