"""The distance from the training rows, and held-out chemistry."""

import numpy as np

from irnet_hpc.pack import store
from irnet_hpc.predict.domain import domain_of
from irnet_hpc.predict.members import read_member
from tests.predict.builders import held_out, numbers, table, train_one


def test_held_out_chemistry_is_flagged_and_random_rows_mostly_are_not(tmp_path, ask, pack_command):
    command = "--source alloys --rows 600 --features magpie --split element:Al --name held"
    assert pack_command(*command.split(), "--workers", 1, "--pack-dir", tmp_path).returncode == 0
    run = train_one(tmp_path / "held.h5", tmp_path / "results", layers="16x1-1")
    val, test = (held_out(tmp_path / "held.h5", role)[0] for role in ("val", "test"))
    pure = ["Cu", "Fe", "Ni", "Ti", "Zr"]  # seen, but in alloys of three to five elements only
    _, rows, _ = ask(run, table(tmp_path / "t.csv", [*val, *test, *pure]), "--pack-dir", tmp_path)
    outside = [bool(row["outside"]) for row in rows]
    assert np.mean(outside[: len(val)]) < 0.07 and all(outside[len(val) :])
    assert (numbers(rows, "distance")[-len(pure) :] >= 1).all()


def test_a_distance_is_that_to_the_nearest_training_row_or_at_most_twice(runs, alloys_pack):
    member = read_member(runs[0])
    with store.open_pack(alloys_pack) as opened:
        domain = domain_of(opened, member.spec)
        train_rows, test = opened.x(opened.rows("train")), opened.x(opened.rows("test"))
    project = domain.projection.project
    projected, own = project(test), project(train_rows)
    nearest = np.sqrt(((projected[:, None] - own[None]) ** 2).sum(-1)).min(1) / domain.limit
    found = domain.distance(test)
    assert (found >= nearest * (1 - 1e-5)).all() and (found <= 2 * nearest + 1e-5).all()
