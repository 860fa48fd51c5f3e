"""Hold the leases of cells that are trained together: what becomes of the others of a bundle."""

import contextlib
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from irnet_hpc.distributed.engines import Alone
from irnet_hpc.files import read_json
from irnet_hpc.runs import lease
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.sweep.cell_process import horovodrun
from irnet_hpc.train import loop as training
from irnet_hpc.train.stopping import NeverStop
from tests.runs.test_lease import lose
from tests.sweep.stand_ins import hold
from tests.train import train_bundles
from tests.train.trainings import command, run


@pytest.mark.parametrize("n_ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_held_cell_is_left_out_and_the_others_go_on(alloys_pack, tmp_path, n_ranks):
    assert run(alloys_pack, tmp_path, seed="1").returncode == 0
    (theirs,) = tmp_path.rglob("seed1")
    (theirs / "result.json").unlink()
    before, process = sorted(path.name for path in theirs.iterdir()), hold(theirs)
    launcher = [] if n_ranks == 1 else horovodrun(n_ranks)
    together = [*launcher, *command(alloys_pack, tmp_path, seed="0,1,2")]
    done = subprocess.run(together, capture_output=True, text=True, timeout=600)
    assert (
        done.returncode != 0
        and f"left out: {theirs} is being trained by process {process.pid} on " in done.stdout
    )
    assert (
        f"error: 1 of 3 cells were left out: {theirs} is being trained by process {process.pid}"
        in done.stderr
    )
    results = sorted(path.parent.name for path in tmp_path.rglob("result.json"))
    assert results == ["seed0", "seed2"]
    assert {read_json(path)["bundle_size"] for path in tmp_path.rglob("result.json")} == {2}
    assert sorted(path.name for path in theirs.iterdir()) == sorted([*before, lease.LEASE_FILE])
    assert [path.parent for path in tmp_path.rglob(lease.LEASE_FILE)] == [
        theirs
    ]  # the others' were given back
    process.communicate()
    last = run(alloys_pack, tmp_path, seed="0,1,2")
    assert last.returncode == 0 and last.stdout.count("already done") == 2


class LoseAfter:
    """No signal; but in a given step another process takes a run over."""

    def __init__(self, n_steps: int, run: Path) -> None:
        self.left, self.run = n_steps, run

    @property
    def asked(self) -> bool:
        self.left -= 1
        if self.left == 0:
            lose(self.run, token="another's")
        return False


def test_a_cell_that_is_taken_over_leaves_the_stack_undisturbed(alloys_pack, tmp_path):
    torch.set_num_threads(1)
    of = {}
    for name in ("disturbed", "undisturbed"):
        replicas = train_bundles.replicas_of("irnet", alloys_pack, tmp_path / name)
        folders = [replica.run.folder for replica in replicas]
        with contextlib.ExitStack() as stack:
            for run_folder in folders:
                stack.enter_context(run_folder.leases).acquire(run_folder.path)
            stop = LoseAfter(2, folders[2].path) if name == "disturbed" else NeverStop()
            ended = training.train(replicas, Alone(), torch.device("cpu"), stop)
            of[name] = {one.replica.spec.seed: one for one in ended}
    found, expected = of["disturbed"], of["undisturbed"]
    assert (
        list(found) == [2, 1, 0]
        and isinstance(found[2].error, lease.LeaseLost)
        and found[2].network is None
    )
    assert (
        len((tmp_path / "disturbed/2/history.csv").read_text().splitlines()) == 1
    )  # its head: no epoch was added
    assert lease.read_lease(tmp_path / "disturbed/2").lease.token == "another's"
    for seed in (0, 1):
        assert found[seed].error is None
        rows = [[row[:5] for row in one.state.history] for one in (found[seed], expected[seed])]
        np.testing.assert_allclose(rows[0], rows[1], 1e-9)


def test_a_rank_writes_while_rank_0_holds_the_lease(tmp_path):
    mine = lose(tmp_path / "run", machine="another")
    folder = RunFolder(tmp_path / "run")
    folder.leases.share(folder.path, mine.token)
    folder.write_error("the pack has gone")
    assert read_json(tmp_path / "run/error.json")["error"] == "the pack has gone"
    lose(tmp_path / "run", token="another's")
    folder.write_error("late")
    with pytest.raises(lease.RunIsHeld):
        folder.append_history([1])
    folder.release()
    assert read_json(tmp_path / "run/error.json")["error"] == "the pack has gone"
    assert (
        lease.read_lease(tmp_path / "run").lease.token == "another's"
        and folder.leases.token_of(folder.path) is None
    )
