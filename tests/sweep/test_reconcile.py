"""Hold what is tried again after a lack of memory or time."""

from irnet_hpc.files import write_json
from irnet_hpc.runs.state_names import Cause
from tests.sweep.stand_ins import (
    MODELS,
    SMALL,
    end_trainings,
)


def test_what_lacked_memory_or_time_is_submitted_again_before_the_tables(
    place, slurm, monkeypatch, capsys
):
    place.path.write_text(SMALL.replace("{minutes: 30}", "{minutes: 30, memory_gb: 8}"))
    place.sweep("submit")
    how = {"101_0": "OUT_OF_MEMORY", "101_1": "TIMEOUT", "101_2": "FAILED", "101_3": "COMPLETED"}
    token = end_trainings(place, slurm, **how, **{"102_0": "CANCELLED by 0", "102_1": "COMPLETED"})
    place.finish("irnet-10", "irnet-24")
    write_json(
        place.run_folder("irnet-17") / "error.json",
        {
            "error": "CUDA out of memory. Tried",
            "cause": Cause.MEMORY,
            "time": "2100-01-01T00:00:00+00:00",
        },
    )
    monkeypatch.setenv("SLURM_JOB_ID", "103")
    capsys.readouterr()
    assert place.sweep("reconcile", "--token", token) == 0
    shown = capsys.readouterr().out
    assert "seed0: job 101_0 OUT_OF_MEMORY, without a result; memory_gb 8 -> 16\n" in shown
    assert (
        "plain-17/onecycle/honest/seed0: job 101_1 TIMEOUT, without a result; minutes 30 -> 60\n"
        in shown
    )
    assert "irnet-17/onecycle/honest/seed0: CUDA out of memory. Tried; memory_gb 8 -> 16\n" in shown
    memory, minutes = slurm.scripts()[4:]
    assert (
        "#SBATCH --mem=16384M\n" in memory
        and "#SBATCH --time=30\n" in memory
        and "--array=0-1%2" in memory
    )
    assert (
        "#SBATCH --mem=8192M\n" in minutes
        and "#SBATCH --time=60\n" in minutes
        and "--array" not in minutes
    )
    told = (slurm.folder / "told").read_text().splitlines()
    assert (
        told[-1] == "update JobId=104 Dependency=afterany:105:106:103"
    )  # what is new, and this very job
    found = place.states()
    assert [found[model] for model in MODELS] == [
        "queued",
        "queued",
        "failed",
        "done",
        "queued",
        "done",
    ]
    assert place.sweep("reconcile", "--token", token) == 0
    assert "no cell has run out" in capsys.readouterr().out and len(slurm.scripts()) == 6


def test_a_matrix_may_want_nothing_tried_again(place, slurm):
    place.path.write_text(SMALL + "retry: false\n")
    place.sweep("submit")
    assert slurm.names() == ["irnet:mine", "irnet:mine", "irnet:tables:mine"]
    assert "#SBATCH --dependency=afterany:101:102\n" in slurm.scripts()[-1]
