"""Hold what submitit carries: jobs of the old layout are refused with a sentence."""

import pickle
import subprocess
import sys

import pytest

from tests.sweep.stand_ins import ROOT


def old_pickle(name: str) -> bytes:
    """Pickle an object of a class of the old layout, with a record that is gone, too."""
    lines = [
        f"cirnet_hpc.jobs\n{name}\n",
        ")\x81",
        "}(S'resources'\ncirnet_hpc.resources\nResources\n)\x81",
        "ub.",
    ]
    return b"\x80\x02" + "".join(lines).encode("latin-1")


@pytest.mark.parametrize("name", ["Training", "Commands"])
def test_a_pickle_of_the_old_layout_ends_with_status_2(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        pickle.loads(old_pickle(name))
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "submit" in line


def test_submitit_ends_a_job_of_the_old_layout_without_a_traceback(tmp_path):
    (tmp_path / "7_submitted.pkl").write_bytes(old_pickle("Training"))
    done = subprocess.run(
        [sys.executable, "-m", "submitit.core._submit", str(tmp_path)],
        cwd=ROOT,
        env={"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "7", "SLURM_LOCALID": "0"}
        | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "PATH": "/usr/bin:/bin", "HOME": "/"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "submit the matrix again" in done.stderr


def test_other_names_of_the_old_module_do_not_exist():
    import irnet_hpc.jobs

    assert not hasattr(irnet_hpc.jobs, "train_options")
