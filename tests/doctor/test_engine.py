import shutil
import sys
from pathlib import Path

import pytest
import torch

from irnet_hpc.doctor import engine
from irnet_hpc.doctor.checks import Level

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
