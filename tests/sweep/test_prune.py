"""Hold that prune removes what nothing needs, and nothing else."""

import os
import time

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.files import write_json
from irnet_hpc.sweep import cli, journal
from irnet_hpc.sweep.matrix.matrix import read_matrix
from irnet_hpc.sweep.prune import prune, remove
from tests.builders import write_result
from tests.runs.test_lease import start
from tests.sweep.stand_ins import HOLD, SMALL, answers, leave_checkpoint
from tests.sweep.test_board import seat


@pytest.fixture
def littered(place, tmp_path):
    """Results with one thing of each kind that may go, and one like each that may not."""
    place.finish("plain-10", "plain-17")
    leave_checkpoint(place, "plain-10")  # of a finished run
    leave_checkpoint(place, "plain-24")  # which a preempted one wants
    unwanted = place.folder / "other.yaml"
    unwanted.write_text(SMALL.replace("[10, 17, 24]", "[48]"))
    for cell in read_matrix(unwanted, place.packs).cells:
        write_result(read_matrix(unwanted, place.packs), cell, place.results)
    (place.results / "notes").mkdir()
    (place.results / "notes/mine.txt").write_text("not a run")
    outside = tmp_path / "outside"
    outside.mkdir()
    write_json(outside / "result.json", {})
    (place.results / "linked").symlink_to(outside)
    old, new = (
        place.run_folder("irnet-17") / f".model.{digit * 8}.tmp.safetensors" for digit in "01"
    )
    old.parent.mkdir(parents=True)
    for path in (old, new):
        path.write_bytes(b"x" * 1000)
    os.utime(old, (time.time() - 7200,) * 2)
    path = journal.begin(place.results, "mine", "local", "999999999@1")
    for token in (journal.token_of(path), "another"):
        write_json(tmp_path / f"state/submitit/mine-{token}/1_submitted.json", {})
    return place


def tree(place) -> set[str]:
    # the state's own folder is made when it is asked for
    return {
        str(path.relative_to(place.folder)) for path in place.folder.rglob("*") if path.is_file()
    }


def test_prune_removes_what_nobody_wants_and_nothing_else(littered, monkeypatch, capsys):
    place, before = littered, tree(littered)
    with pytest.raises(UserError, match="add --yes to confirm"):
        place.sweep("prune")
    answers(monkeypatch, "n")
    assert place.sweep("prune") == 0
    assert tree(place) == before and "nothing was removed" in capsys.readouterr().out
    (token,) = [journal.token_of(path) for path in (place.results / ".sweep").glob("*.jsonl")]
    assert place.sweep("prune", "--yes") == 0
    shown = capsys.readouterr().out
    base = "results/alloys-magpie/mixing_enthalpy"
    assert before - tree(place) == {
        f"{base}/plain-48/onecycle/honest/seed0/result.json",
        f"{base}/irnet-48/onecycle/honest/seed0/result.json",
        f"{base}/plain-10/onecycle/honest/seed0/checkpoint/a.json",
        f"{base}/irnet-17/onecycle/honest/seed0/.model.00000000.tmp.safetensors",
        f"state/submitit/mine-{token}/1_submitted.json",
    }
    assert "    0.001 MB  temporary file " in shown and "removed 5 of 5" in shown
    assert not (place.results / "alloys-magpie/mixing_enthalpy/plain-48").exists()
    assert place.sweep("prune", "--yes") == 0
    assert "nothing to prune" in capsys.readouterr().out


def test_prune_keeps_what_another_matrix_wants_and_what_is_being_trained(littered, capsys):
    place = littered
    other = place.folder / "other.yaml"
    run = place.results / "alloys-magpie/mixing_enthalpy/plain-48/onecycle/honest/seed0"
    process = start(HOLD, run)
    assert process.stdout.readline() == "holds\n"
    assert place.sweep("prune", "--yes") == 0
    assert (run / "result.json").exists()
    process.communicate()
    assert place.sweep("prune", "--yes") == 0  # it has been given back, and nobody wants it
    assert not run.exists()
    for cell in read_matrix(other, place.packs).cells:
        write_result(read_matrix(other, place.packs), cell, place.results)
    run.parents[2].rename(
        run.parents[2].with_name("kept")
    )  # not where a run of its kind belongs: somebody's copy
    capsys.readouterr()
    assert cli.main(["prune", str(other), *place.command("prune")[1:]]) == 0
    assert "nothing to prune" in capsys.readouterr().out


def test_the_board_of_an_ended_sweep_is_removed_and_that_of_a_worker_is_not(place):
    with seat(place.results, "a") as worker:
        assert worker.take(["x"]) == "x"
        assert prune(place.results, [place.matrix]) == []
    (waste,) = prune(place.results, [place.matrix])
    assert waste.path == worker.path and waste.size > 0
    with seat(place.results, "b"):  # it has joined since
        assert "stays" in remove(waste, place.results)
    assert remove(waste, place.results) is None
    assert not worker.path.exists()
