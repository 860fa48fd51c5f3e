"""The command `python -m irnet_hpc.predict`."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.predict.builders import ROOT, numbers, stored, table


def test_formulas_get_the_predictions_that_the_run_recorded_for_them(runs, ask, tmp_path):
    recorded = stored(runs[0])
    status, rows, _ = ask(runs[0], table(tmp_path / "test.csv", recorded["formula"]))
    assert status == 0
    np.testing.assert_allclose(
        numbers(rows, "predicted_mixing_enthalpy"), recorded["prediction"], atol=2e-5
    )


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(runs, alloys_pack, tmp_path):
    """Ten times as many formulas, in processes of their own: peak memory."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "IRNET_PACKS": str(alloys_pack.parent),
        "OMP_NUM_THREADS": "1",
    }
    peaks = []
    for n_rows in (30_000, 300_000):
        formulas = table(
            tmp_path / "t.csv",
            (f"Al{n % 977 + 1}Ni{n % 89 + 1}Ti{n % 13 + 1}" for n in range(n_rows)),
        )
        code = f"""
from pathlib import Path
from irnet_hpc.predict import cli as predict
assert predict.main([{str(runs[0])!r}, {str(formulas)!r}, "-o", {str(tmp_path / "o.csv")!r}]) == 0
# getrusage's peak would be that of the parent, which a fork inherits.
status = Path("/proc/self/status").read_text()
print(status.partition("VmHWM:")[2].split()[0])
"""
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        peaks.append(int(done.stdout) / 1024)
        with (tmp_path / "o.csv").open() as file:
            assert sum(1 for _ in file) == n_rows + 1
    assert peaks[1] - peaks[0] < 20, (
        f"{peaks} MiB"
    )  # the list of ten times the rows is 30 MB as text alone
