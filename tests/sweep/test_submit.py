"""Hold what is submitted to SLURM, in which order, and never twice."""

import json
import os
import pickle
import stat
from pathlib import Path

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.sweep.cell_states import read_ledger
from irnet_hpc.sweep.jobs import Commands, TrainingJob, with_threads
from irnet_hpc.sweep.places import threads_of
from tests.sweep.stand_ins import LAST, MODELS, SMALL, command, fail, wait_until


def test_packs_come_first_then_arrays_then_the_tables(place, slurm, capsys):
    (place.packs / "alloys-magpie.h5").unlink()
    assert place.sweep("submit") == 0
    pack, four, two, again, tables = slurm.scripts()
    assert slurm.names() == ["irnet:pack:alloys-magpie", "irnet:mine", "irnet:mine", *LAST]
    assert "#SBATCH --array=0-3%4\n" in four and "#SBATCH --array=0-1%2\n" in two
    assert "--dependency" not in pack and "--array" not in pack
    assert (
        "#SBATCH --dependency=afterok:101\n" in four and "#SBATCH --dependency=afterok:101\n" in two
    )
    assert "#SBATCH --dependency=afterany:101:102:103\n" in again
    assert "#SBATCH --dependency=afterany:104\n" in tables
    assert all("#SBATCH --kill-on-invalid-dep=yes\n" in text for text in slurm.scripts())
    assert "srun" in four and "--kill-on-bad-exit=1" in four and "srun" not in tables
    log = capsys.readouterr().out.partition("the tables will be in ")[2].split()[0]
    assert Path(log).parent == place.results / ".sweep"


def test_what_is_queued_or_done_is_not_submitted_again(place, slurm, capsys):
    place.finish("plain-10")
    place.finish("plain-17", key="stale")
    assert place.sweep("submit") == 0
    assert slurm.names() == ["irnet:mine", *LAST]
    assert place.states() == {"plain-10": "done", "plain-17": "stale"} | dict.fromkeys(
        MODELS[2:], "queued"
    )
    assert place.sweep("submit") == 0
    assert len(slurm.scripts()) == 3
    assert "nothing to submit" in capsys.readouterr().out
    assert place.sweep("submit", "--stale", "--yes") == 0
    assert slurm.names()[3:] == ["irnet:mine", *LAST]
    assert "--array" not in slurm.scripts()[3]
    assert (
        "#SBATCH --dependency=afterany:101:104\n" in slurm.scripts()[4]
    )  # one table of all that is under way


def test_cells_wait_for_a_pack_that_an_earlier_submission_is_building(place, slurm):
    (place.packs / "alloys-magpie.h5").unlink()
    place.sweep("submit")
    slurm.forget("102_0", **{"102_0": "CANCELLED by 0"})
    assert place.sweep("submit") == 0
    assert slurm.names()[5:] == ["irnet:mine", *LAST]
    assert "#SBATCH --dependency=afterok:101\n" in slurm.scripts()[5]


def test_a_submission_killed_halfway_is_not_repeated_while_its_jobs_live(place, slurm):
    place.sweep("submit")
    (path,) = (place.results / ".sweep").glob("*.jsonl")
    head, *lines = path.read_text().splitlines()
    cut = json.dumps(json.loads(head) | {"driver": "999999999@1"})
    path.write_text(
        "\n".join([cut, *lines[:6], *lines[6:8]]) + "\n"
    )  # 6 cells meant, of which 2 have their number
    assert set(place.states().values()) == {"queued"}
    (slurm.folder / "queue").write_text("")
    found = place.states()
    assert [found[model] for model in MODELS] == ["failed", "failed", *["missing"] * 4]


def test_what_slurm_refuses_is_one_sentence(place, slurm):
    (slurm.folder / "refuse").touch()
    with pytest.raises(UserError) as error:
        place.sweep("submit")
    assert (
        str(error.value)
        == "SLURM refused irnet:mine: sbatch: error: invalid partition specified: fast"
    )
    assert set(place.states().values()) == {"missing"}


def test_what_slurm_took_before_it_refused_has_its_tables(place, slurm):
    (slurm.folder / "refuse-102").touch()
    with pytest.raises(UserError, match="SLURM refused irnet:mine"):
        place.sweep("submit")
    assert list(place.states().values()) == ["queued"] * 4 + ["missing"] * 2
    assert slurm.names() == ["irnet:mine", *LAST]
    assert "#SBATCH --dependency=afterany:101\n" in slurm.scripts()[1]


def test_a_job_whose_answer_was_lost_is_not_submitted_again(place, slurm, capsys):
    (slurm.folder / "lose-102").touch()
    with pytest.raises(UserError, match="Socket timed out"):
        place.sweep("submit")
    assert list(place.states().values()) == ["queued"] * 6
    assert place.sweep("submit") == 0
    assert "nothing to submit" in capsys.readouterr().out
    slurm.forget("102_0", "102_1")  # the tables, of the same submission, are still in the queue
    assert list(place.states().values()) == ["queued"] * 4 + ["missing"] * 2


def test_a_job_submitted_from_a_job_inherits_only_the_cluster(place, slurm, monkeypatch):
    inherited = {
        "SLURM_NTASKS": "8",
        "SLURM_JOB_ID": "5",
        "PMIX_RANK": "1",
        "RANK": "1",
        "CUDA_VISIBLE_DEVICES": "3",
    }
    for name, value in (
        inherited.items() | {"SLURM_CONF": "/somewhere/slurm.conf", "IRNET_DATA": "/data"}.items()
    ):
        monkeypatch.setenv(name, value)
    place.sweep("submit")
    environment = (slurm.folder / "101.env").read_text()
    assert not [name for name in inherited if f"\n{name}=" in f"\n{environment}"]
    assert "SLURM_CONF=/somewhere/slurm.conf" in environment and "IRNET_DATA=/data" in environment
    assert os.environ["SLURM_NTASKS"] == "8"


def test_pickles_are_in_a_private_folder_and_never_in_the_results(place, slurm, tmp_path):
    place.sweep("submit")
    assert not list(place.results.rglob("*.pkl"))
    assert list((tmp_path / "state").rglob("*.pkl"))
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_the_budget_stops_a_matrix_before_anything_starts(place, slurm):
    place.path.write_text(SMALL.replace("budget_device_hours: 3", "budget_device_hours: 2"))
    with pytest.raises(UserError, match=r"may need 3\.0 .*budget_device_hours .* is 2;"):
        place.sweep("submit")
    assert not slurm.scripts()
    place.finish("plain-10", "plain-17")
    assert place.sweep("submit") == 0


def test_retry_goes_through_slurm_where_there_is_one(place, slurm):
    fail(place, "plain-10", "irnet-10")
    assert place.sweep("retry", "--failed", "--yes") == 0
    assert slurm.names() == ["irnet:mine", *LAST]
    assert "#SBATCH --array=0-1%2\n" in slurm.scripts()[0]
    assert place.states() == dict.fromkeys(MODELS, "missing") | {
        "plain-10": "queued",
        "irnet-10": "queued",
    }


REAL = """
packs: [alloys-small]
properties: [mixing_enthalpy]
models: [64BARx2-1, 32BAx2-1]
recipes: [{name: tiny, base: onecycle, precision: fp32, batch: 64, norm_group: 32, epochs: 2}]
resources: {ranks_per_node: %d, minutes: 1}
"""


@pytest.mark.slow
def test_without_slurm_a_process_in_the_background_does_the_same(tmp_path, alloys_pack):
    (tmp_path / "real.yaml").write_text(REAL % 1)
    places = ("--results", tmp_path / "results", "--pack-dir", alloys_pack.parent)
    state = {"IRNET_STATE": str(tmp_path / "state")}
    done = command("submit", tmp_path / "real.yaml", *places, "--cluster", "local", **state)
    assert done.returncode == 0, done.stdout + done.stderr
    again = command("submit", tmp_path / "real.yaml", *places, "--cluster", "local", **state)
    assert "nothing to submit" in again.stdout
    log = Path(done.stdout.partition("the tables will be in ")[2].split()[0])
    wait_until(lambda: "2 of 2 cells are done" in log.read_text())
    assert "mixing_enthalpy (eV/atom)" in log.read_text()


SIZES = """
packs: [alloys-magpie]
properties: [mixing_enthalpy]
models: [64BARx2-1, irnet-17, decision_tree]
resources: {minutes: 30, cpus_per_rank: 4}
"""


def submitted(tmp_path, of: type) -> list:
    """Return the jobs that were given to submitit, of a class of ours."""
    jobs = (pickle.loads(path.read_bytes()) for path in (tmp_path / "state").rglob("*.pkl"))
    return [job.function for job in jobs if isinstance(getattr(job, "function", None), of)]


def test_a_job_has_the_threads_that_pay_as_a_worker_has(place, slurm, tmp_path, monkeypatch):
    place.path.write_text(SIZES)
    assert place.sweep("submit") == 0
    entries = read_ledger(place.matrix, place.results).cells
    expected = {str(entry.folder): threads_of(entry, {}) for entry in entries}
    jobs = submitted(tmp_path, TrainingJob)
    assert {str(job.folders[0]): job.n_threads for job in jobs} == expected
    assert sorted(expected.values()) == [1, 4, 4]
    assert not [text for text in slurm.scripts() if "OMP_NUM_THREADS" in text]
    # The retry job states none: it would count as the user's number in the jobs that it submits.
    assert sorted(str(job.n_threads) for job in submitted(tmp_path, Commands)) == ["1", "None"]


@pytest.mark.parametrize(
    ("stated", "n_threads", "expected"), [(None, 4, "4"), ("2", 4, "2"), (None, None, None)]
)
def test_the_users_own_number_of_threads_counts_in_a_job(stated, n_threads, expected, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if stated:
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
    with_threads(n_threads)
    assert os.environ.get("OMP_NUM_THREADS") == expected
    os.environ.pop("OMP_NUM_THREADS", None)
