"""Results read from a folder: sound ones, damaged ones, and none."""

import json
import re

import pytest

from irnet_hpc.aggregate.notes import gap_notes
from irnet_hpc.aggregate.tables import tabulate
from irnet_hpc.files import write_json
from irnet_hpc.runs.collect import collect_runs
from tests.aggregate.results import write_joint, write_run


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"spec": 1}', "", "NaN"])
def test_any_nonsense_in_a_result_is_named_and_not_fatal(tmp_path, content):
    write_run(tmp_path, 0.1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "result.json").write_text(content)
    runs, gaps = collect_runs(tmp_path)
    assert len(runs) == 1
    assert str(tmp_path / "other" / "result.json") in gaps[tmp_path / "other"].why


@pytest.mark.parametrize(
    "change",
    [
        {"spec": 3},
        {"spec": {"pack": "p"}},
        {"test_mae": None},
        {"baseline_mae": "x"},
        {"key": None},
        {"val_mae": "x"},
        {"fitted_rows": "x"},
    ],
)
def test_a_result_of_the_right_keys_and_wrong_values_is_left_out(tmp_path, change):
    write_run(tmp_path, 0.1)
    wrong = write_run(tmp_path, 0.1, seed=1, **change)
    runs, gaps = collect_runs(tmp_path)
    assert len(runs) == 1
    assert gaps[wrong].state == "unreadable, and left out"


@pytest.mark.parametrize(
    "change", [{"start_from": 5}, {"layers": 5}, {"pack": 5}, {"seed": True}, {"depth": 17.0}]
)
def test_a_specification_of_wrong_types_is_named_and_costs_no_table(tmp_path, change):
    write_run(tmp_path, 0.1)
    wrong = write_run(tmp_path, 0.1, seed=1)
    value = json.loads((wrong / "result.json").read_text())
    write_json(wrong / "result.json", value | {"spec": value["spec"] | change})
    runs, gaps = collect_runs(tmp_path)
    assert [table.rows[0].scores[0].seeds for table in tabulate(runs)] == [(0,)]
    (note,) = gap_notes(gaps)
    ((name, value),) = change.items()
    assert note.heading == "unreadable, and left out"
    assert re.search(
        rf"{wrong}/result.json: {name} must be of type .*, got {value}$", note.lines[0]
    )


def test_folders_behind_a_link_are_read_and_a_circle_of_links_ends(tmp_path):
    write_run(tmp_path / "scratch", 0.1)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "link").symlink_to(tmp_path / "scratch")
    (tmp_path / "scratch" / "circle").symlink_to(tmp_path / "results")
    assert len(collect_runs(tmp_path / "results")[0]) == 1


def test_a_result_from_before_these_models_is_still_read(tmp_path):
    folder = write_run(tmp_path, 0.1)
    value = json.loads((folder / "result.json").read_text())
    for name in ("chosen", "fitted_rows"):
        del value[name]
    write_json(folder / "result.json", value)
    runs, gaps = collect_runs(tmp_path)
    assert (len(runs), gaps, runs[0].result.chosen) == (1, {}, None)


@pytest.mark.parametrize(
    "wrong", [None, {}, {"formation_energy": {}}, {"formation_energy": 1, "band_gap": 2}, "nan"]
)
def test_a_joint_result_without_numbers_for_each_property_is_left_out(tmp_path, wrong):
    folder = write_joint(tmp_path, 0.1, 0.4)
    value = json.loads((folder / "result.json").read_text())
    if wrong == "nan":
        value["per_property"]["band_gap"]["test_mae"] = None
    else:
        value["per_property"] = wrong
    (folder / "result.json").write_text(json.dumps(value))
    runs, gaps = collect_runs(tmp_path)
    assert not runs and (
        "per_property" in gaps[folder].why or "test_mae of band_gap" in gaps[folder].why
    )


def test_a_folder_may_be_given_as_text(tmp_path):
    folder = write_run(tmp_path, 0.1)
    assert [run.folder for run in collect_runs(str(tmp_path))[0]] == [folder]
