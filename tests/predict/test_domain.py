"""The distance from the training rows, and held-out chemistry."""

import numpy as np
import pandas as pd
import pytest

from irnet_hpc import load_model, pack_table
from irnet_hpc.pack import store
from irnet_hpc.predict.domain import Constants, constants_of, domain_of
from irnet_hpc.predict.members import read_member
from irnet_hpc.runs.spec import RunSpec, model_of
from tests.predict.builders import QUICK, held_out, numbers, table, train_one


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


def test_another_value_of_a_feature_that_no_training_row_varies_is_outside(tmp_path):
    u = np.random.default_rng(0).normal(size=240)
    same = {"T": 300.0, "flag": 0, "dose": 1e9}
    frame = pd.DataFrame({"formula": [f"Al{n}Ni" for n in range(1, 241)], **same, "u": u})
    frame["score"] = u
    options = {"features": "columns", "units": {"score": "1"}, "workers": 1}
    with pack_table(frame, name="same", pack_dir=tmp_path, **options) as pack:
        path = pack.path
    recipe = QUICK.replace("batch: 64", "batch: 32")
    runs = [
        train_one(path, tmp_path / "r", property="score", recipe=recipe, layers="16x1-1", seed=seed)
        for seed in (0, 1)
    ]
    candidates = pd.DataFrame(
        [(300, 0, 1e9, 0), (301, 0, 1e9, 0), (300, 1, 1e9, 0), (300, 0, 1.1e9, 0), (9, 1, 2, 0)],
        columns=["T", "flag", "dose", "u"],
    )
    outside = load_model(runs, pack_dir=tmp_path).predict(candidates)["outside"].tolist()
    known, *new, all_new = [text.replace("elements not known", "") for text in outside]
    assert known == ""
    for name, text in zip(("T", "flag", "dose"), new, strict=True):
        assert text.count("in every training row") == 1 and text.startswith(f"{name} is ")
    assert all(f"{name} is " in all_new for name in ("T", "flag", "dose"))


def test_a_value_that_one_training_row_has_is_not_new():
    constants = Constants(np.array([1, 2]), np.array([300, 0], np.float32))
    x = np.array([[7, 300, 0], [7, 300 * (1 + 5e-7), 0], [7, 299, 0], [7, 300, 1e-9]], np.float32)
    assert constants.differ(x).tolist() == [
        [False, False],
        [False, False],
        [True, False],
        [False, True],
    ]


def test_constants_are_found_over_all_rows_and_only_they(alloys_pack):
    with store.open_pack(alloys_pack) as pack:
        rows = np.arange(pack.n_train)
        x, found = pack.x(slice(0, pack.n_train)), constants_of(pack, rows)
    varies = (x != x[0]).any(0)
    np.testing.assert_array_equal(found.place, np.flatnonzero(~varies))
    np.testing.assert_array_equal(found.value, x[0][~varies])
    assert 0 < len(found.place) < x.shape[1]


def test_a_value_that_only_a_late_training_row_has_is_not_new(runs, alloys_pack, monkeypatch):
    """Distances may be measured to the first rows alone; what every row has is true of all."""
    monkeypatch.setattr("irnet_hpc.predict.domain.NEIGHBOUR_ROWS", 2)
    with store.open_pack(alloys_pack) as pack:
        x = pack.x(slice(0, pack.n_train))
        found = domain_of(pack, read_member(runs[0]).spec).constants
    assert not found.differ(x).any()
    assert 0 < len(found.place) < (x[0] == x[1]).sum()


@pytest.mark.parametrize(("protocol", "constant"), [("honest", ["flag"]), ("paper", [])])
def test_val_rows_that_were_trained_on_are_not_new(protocol, constant, tmp_path):
    """One val row alone has flag 1."""
    frame = pd.DataFrame({"formula": [f"Al{n}Ni" for n in range(1, 121)], "flag": 0})
    frame["score"] = frame["u"] = np.random.default_rng(0).normal(size=120)
    options = {"features": "columns", "units": {"score": "1"}, "workers": 1, "pack_dir": tmp_path}
    with pack_table(frame, name="same", **options) as pack:
        in_val = frame["formula"] == pack.formulas(pack.rows("val"))[0]
    frame.loc[in_val, "flag"] = 1
    spec = RunSpec("one", "score", recipe="onecycle", protocol=protocol, **model_of("8x1-1"))
    with pack_table(frame, name="one", **options) as pack:
        domain = domain_of(pack, spec)
        assert [pack.feature_labels[place] for place in domain.constants.place] == constant


def test_a_new_element_is_named_and_not_each_of_its_features(runs, ask, tmp_path):
    _, rows, _ = ask(runs[0], table(tmp_path / "t.csv", ["AlNiO3"]))
    assert rows[0]["outside"].startswith("no training row has O")
    assert "in every training row" not in rows[0]["outside"]
