import shutil
import sys
from pathlib import Path

import pytest
import torch

from irnet_hpc.doctor import engine
from irnet_hpc.doctor.checks import Level, Verdict
from irnet_hpc.doctor.report import Report

ROOT = Path(__file__).parents[2]


def test_a_sum_is_judged_by_its_numbers_and_by_how_many_ranks_there_were():
    facts = {
        "engine": "horovod (gloo)",
        "size": 2,
        "device": "cpu",
        "right": True,
        "mb_per_s": 1500.0,
    }
    assert engine.judge_sum(facts, 2, "x").level == Level.OK
    assert engine.judge_sum(facts | {"right": False}, 2, "x").level == Level.FAILURE
    too_few = engine.judge_sum(facts | {"size": 1}, 2, "x")
    assert too_few.level == Level.FAILURE and "2 ranks" in too_few.found


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            f"horovod.torch: {Path(sys.executable).name} was ended by SIGSEGV",
        ),
        (
            "raise ImportError('undefined symbol: _ZN3c10')",
            "ImportError: undefined symbol: _ZN3c10",
        ),
    ],
)
def test_a_horovod_that_crashes_or_fits_another_torch_is_a_failure(
    settings, tmp_path, monkeypatch, line, words
):
    cuda = (
        "class cuda:\n    is_available = staticmethod(lambda: False)\n"
        "class version:\n    cuda = None\n"
    )
    for package, text in (
        ("torch", f"__version__ = '9'\n{cuda}"),
        ("horovod", ""),
        ("horovod/torch", line),
    ):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    engine.probe_libraries.cache_clear()
    verdict = engine.check_horovod(settings)
    engine.probe_libraries.cache_clear()
    assert verdict.level == Level.FAILURE and words in verdict.found
    assert "bash env/setup.sh" in verdict.todo
    assert verdict.facts["torch"] == "9"


def hide_horovod(tmp_path, monkeypatch, missing="horovod"):
    """Make the probes find no Horovod, or one that lacks another module."""
    (tmp_path / "horovod").mkdir()
    line = f"raise ModuleNotFoundError('No module named {missing}', name='{missing}')"
    (tmp_path / "horovod" / "__init__.py").write_text(line)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")


@pytest.fixture
def forget_libraries():
    engine.probe_libraries.cache_clear()
    yield
    engine.probe_libraries.cache_clear()


@pytest.mark.usefixtures("forget_libraries")
def test_without_horovod_the_doctor_says_what_runs_and_ends_with_0(
    put_on_path, run_doctor, tmp_path, monkeypatch
):
    """Cells of one rank need no Horovod; no check of several ranks fails for its absence."""
    put_on_path()
    hide_horovod(tmp_path, monkeypatch)
    status, checks = run_doctor("--only", "engine")
    assert status == 0
    assert checks["Horovod"]["level"] == "warning"
    assert "one rank" in checks["Horovod"]["found"] and "--ranks 1" in checks["Horovod"]["todo"]
    assert not {"two ranks", "under mpirun", "allocation"} & checks.keys()


@pytest.mark.usefixtures("forget_libraries")
def test_a_horovod_that_lacks_another_module_is_a_failure(settings, tmp_path, monkeypatch):
    hide_horovod(tmp_path, monkeypatch, "cloudpickle")
    verdict = engine.check_horovod(settings)
    assert verdict.level == Level.FAILURE and "cloudpickle" in verdict.found


@pytest.mark.parametrize(
    ("facts", "mpi", "nccl"),
    [
        ({"mpi": "Open MPI v4.1.4", "n_gpus": 0}, Level.NOTE, None),
        ({"no_mpi": "ImportError", "n_gpus": 0}, Level.NOTE, None),
        ({"mpi": "Open MPI v4.1.4", "n_gpus": 2}, Level.NOTE, Level.OK),
    ],
)
def test_mpi_and_gpus_without_horovod_are_not_failures(
    settings, put_on_path, monkeypatch, facts, mpi, nccl
):
    put_on_path(alone=True)  # no nvidia-smi
    facts = {"torch": "9", "horovod": None, "libmpi": [], "libnccl": []} | facts
    monkeypatch.setattr(engine, "probe_libraries", lambda: (facts, ""))
    assert engine.check_mpi(settings).level == mpi
    verdict = engine.check_nccl(settings)
    assert (verdict and verdict.level) == nccl
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert engine.check_gloo(settings) is None
    assert engine.check_mpirun(settings) is None
    assert engine.check_allocation(settings) is None


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ({"Horovod": "ok", "two ranks": "ok"}, "would run here"),
        ({"Horovod": "failure"}, "with one rank per cell"),
        ({"Horovod": "ok", "two ranks": "failure"}, "with one rank per cell"),
        ({"Horovod": "absent", "results": "ok"}, "with one rank per cell"),
        ({"Horovod": "absent", "results": "failure"}, "would not run"),
        ({"Horovod": "ok", "NCCL": "failure"}, "would not run"),
        ({"results": "failure"}, "would not run"),
    ],
)
def test_the_last_line_says_what_would_run(levels, words):
    report = Report()
    for name, level in levels.items():
        facts = {"horovod": None if level == "absent" else "0.28.1"}
        level = Level.WARNING if level == "absent" else Level(level)
        report.verdicts[name] = Verdict(level, "found", "todo", facts)
    assert words in report.summary()


@pytest.mark.parametrize(
    ("libmpi", "level"),
    [
        (["/a/libmpi.so.40"], Level.OK),
        (["/a/libmpi.so.40", "/b/libmpi.so.12"], Level.FAILURE),
        ([], Level.FAILURE),
    ],
)
def test_mpi4py_and_horovod_must_share_one_mpi_library(settings, monkeypatch, libmpi, level):
    facts = {"mpi": "Open MPI v4.1.4", "built": {"mpi": True}, "libmpi": libmpi}
    monkeypatch.setattr(engine, "probe_libraries", lambda: (facts, ""))
    assert engine.check_mpi(settings).level == level


@pytest.mark.slow
def test_two_real_ranks_sum_correctly_with_this_torch(settings):
    if shutil.which("horovodrun") is None:
        pytest.skip("horovodrun is not installed")
    assert engine.check_horovod(settings).facts["torch"] == torch.__version__
    verdict = engine.check_gloo(settings)
    assert verdict.level == Level.OK, verdict
    assert (verdict.facts["engine"], verdict.facts["size"]) == ("horovod (gloo)", 2)
    assert verdict.facts["right"] and verdict.facts["mb_per_s"] > 0
