"""Differences of models on the same rows, with numbers worked out by hand."""

import json
import zipfile

import numpy as np
import pytest

from irnet_hpc.aggregate.notes import problem_notes
from irnet_hpc.aggregate.report import make_tables
from irnet_hpc.aggregate.sections import differences
from irnet_hpc.aggregate.statistics import paired_interval
from irnet_hpc.files import write_json
from irnet_hpc.runs.collect import collect_runs
from irnet_hpc.runs.predictions import FILE
from irnet_hpc.runs.recipes import RECIPES
from tests.aggregate.results import (
    FORMULAS,
    PAIR,
    differences_in,
    findings_of,
    of_one,
    write_irnet_and_forest,
    write_joint,
    write_predictions,
    write_run,
    write_split,
)


def test_irnet_against_the_best_classical_is_the_mean_difference_of_errors(tmp_path):
    """Seeds 0.10, 0.11 and 0.12 less 0.3: -0.19, which is 63.3 % of 0.3."""
    write_irnet_and_forest(tmp_path)
    (difference,), problems = differences_in(tmp_path)
    assert (difference.model, difference.against, problems) == ("irnet-17", "random_forest", {})
    assert (difference.mean, difference.percent) == (
        pytest.approx(-0.19),
        pytest.approx(-63.3333, rel=1e-5),
    )
    assert (
        difference.n_splits,
        difference.n_runs,
        difference.n_runs_against,
        difference.n_test,
    ) == (1, 3, 1, 4)
    ours = np.array([[0.10] * 4, [0.11] * 4, [0.12] * 4])
    theirs = np.array([[0.2, 0.2, 0.3, 0.5]])
    expected = paired_interval([ours], [theirs], [np.array([0, 0, 2, 1])])
    assert (difference.low, difference.high) == (
        pytest.approx(expected.low),
        pytest.approx(expected.high),
    )
    assert difference.excludes_zero is (expected.high < 0)


def test_irnet_is_compared_with_the_plain_network_of_its_depth_and_with_no_other(tmp_path):
    """Seeds 0.10, 0.11 and 0.12 less 0.2, 0.21 and 0.22: -0.10, of 0.21.

    plain-48 has a depth that no IRNet has.
    """
    for seed in range(3):
        write_predictions(write_run, tmp_path, [0.1 + 0.01 * seed] * 4, "irnet-17", seed=seed)
        write_predictions(write_run, tmp_path, [0.2 + 0.01 * seed] * 4, "plain-17", seed=seed)
        write_predictions(write_run, tmp_path, [0.5] * 4, "plain-48", seed=seed)
    (difference,), problems = differences_in(tmp_path)
    assert (difference.model, difference.against, difference.n_runs_against, problems) == (
        "irnet-17",
        "plain-17",
        3,
        {},
    )
    assert (difference.mean, difference.percent) == (
        pytest.approx(-0.1),
        pytest.approx(-100 * 0.1 / 0.21),
    )


def test_below_three_runs_nothing_is_claimed(tmp_path):
    write_irnet_and_forest(tmp_path, n_seeds=2)
    (difference,), _ = differences_in(tmp_path)
    assert (difference.mean, difference.low, difference.excludes_zero) == (
        pytest.approx(-0.195),
        None,
        None,
    )
    (block,) = differences.section(findings_of(tmp_path)).blocks
    named = dict(zip(*([cell.text for cell in line] for line in block.lines), strict=True))
    assert (named["95 % interval"], named["excludes zero"], named["splits × seeds"]) == (
        "n < 3",
        "n < 3",
        "1 × 2",
    )


def test_three_splits_of_one_seed_are_three_runs_paired_by_split(tmp_path):
    """IRNet is 0.1 better in each of splits 0, 1 and 2; the forest has no run of split 3."""
    for split in range(4):
        write_predictions(write_split, tmp_path, [0.2 + split, 0.3 + split], split, rows=split)
        if split < 3:
            write_predictions(
                write_split,
                tmp_path,
                [0.3 + split, 0.4 + split],
                split,
                "random_forest",
                rows=split,
            )
    (difference,), _ = differences_in(tmp_path)
    assert (difference.n_splits, difference.n_runs, difference.n_test) == (3, 3, 6)
    assert (difference.mean, difference.low, difference.high) == tuple(
        map(pytest.approx, (-0.1, -0.1, -0.1))
    )
    assert difference.excludes_zero
    (block,) = differences.section(findings_of(tmp_path)).blocks
    assert [cell.text for cell in block.lines[1]][-4:-1] == ["3 × 1", "3 × 1", "6"]


def test_transfer_is_compared_with_scratch_and_with_the_best_classical(tmp_path):
    """From scratch 0.20, 0.21, 0.22; transferred 0.15, 0.16, 0.17: 0.05 less, 23.8 % of 0.21.

    The forest has 0.3.
    """
    for seed in range(3):
        write_predictions(write_run, tmp_path, [0.2 + 0.01 * seed] * 4, "plain-17", seed=seed)
        write_predictions(
            write_run,
            tmp_path,
            [0.15 + 0.01 * seed] * 4,
            "plain-17",
            seed=seed,
            start_from="0123456789abcdef",
        )
    write_predictions(write_run, tmp_path, [0.3] * 4, "random_forest")
    found, _ = differences_in(tmp_path)
    assert {
        difference.against: (round(difference.mean, 9), difference.excludes_zero)
        for difference in found
    } == {
        "from scratch": (-0.05, True),
        "random_forest": (-0.14, True),
    }
    assert found[0].percent == pytest.approx(-23.8095, rel=1e-5)


def test_splits_that_share_their_test_rows_are_runs_on_one_draw_of_rows(tmp_path):
    """Where oxygen is held out, the split's seed changes train and val only.

    So there are 3 x 1 runs, but 4 test rows and not 12.
    """
    ours, theirs = (
        np.random.default_rng(0).uniform(0.1, 0.3, size=(3, 4)),
        np.array([[0.2, 0.4, 0.3, 0.5]] * 3),
    )
    for split in range(3):
        oxygen = {"split": {"by": "element", "elements": ["O"], "seed": split}}
        for errors, model in ((ours, "irnet-17"), (theirs, "ridge")):
            write_predictions(
                write_split,
                tmp_path,
                errors[split],
                split,
                model,
                pack="o-element_O",
                identity=oxygen,
            )
    (difference,), _ = differences_in(tmp_path)
    expected = paired_interval([ours], [theirs], [np.array([0, 0, 2, 1])])
    assert (difference.n_splits, difference.n_runs, difference.n_test) == (3, 3, 4)
    assert (difference.mean, difference.low, difference.high) == tuple(map(pytest.approx, expected))


def test_a_recipe_for_going_on_is_compared_with_the_other_recipes_from_scratch(tmp_path):
    for seed in range(3):
        write_predictions(write_run, tmp_path, [0.2] * 4, "plain-17", seed=seed)
        going_on = {"recipe": RECIPES["paper"], "start_from": "0123456789abcdef"}
        write_predictions(write_run, tmp_path, [0.15] * 4, "plain-17", seed=seed, **going_on)
    (difference,), _ = differences_in(tmp_path)
    assert (difference.against, difference.mean) == (
        "from scratch, recipe onecycle",
        pytest.approx(-0.05),
    )
    # From scratch it is a weak rival, which must not replace the strong difference.
    for seed in range(3):
        write_predictions(
            write_run, tmp_path, [0.4] * 4, "plain-17", seed=seed, recipe=RECIPES["paper"]
        )
    found, _ = differences_in(tmp_path)
    assert {difference.against: difference.mean for difference in found} == {
        "from scratch": pytest.approx(-0.25),
        "from scratch, recipe onecycle": pytest.approx(-0.05),
    }


def test_a_property_of_a_joint_network_is_compared_on_the_rows_that_report_it(tmp_path):
    """Energies of three rows are off by 0.1, the forest's by 0.3.

    The gap of the second row is not reported.
    """
    for seed in range(3):
        folder = write_joint(tmp_path, 0.1, 0.5, n_test=3, seed=seed)
        value = json.loads((folder / "result.json").read_text())
        value["per_property"] = {
            "formation_energy": of_one(0.1, "eV/atom", 3),
            "band_gap": of_one(0.5, "eV", 2),
        }
        write_json(folder / "result.json", value)
        target = np.array([[1, 1], [2, np.nan], [3, 3.0]])
        names = {"formula": FORMULAS[:3], "material_id": np.array(["m0-0", "m0-1", "m0-2"])}
        predicted = {
            "target": target,
            "prediction": target + np.array([0.1, 0.5]),
            "property": np.array(PAIR.split(",")),
        }
        np.savez(folder / FILE, **names, **predicted)
    forest = {"n_train": 24, "n_val": 3}
    write_predictions(write_run, tmp_path, [0.3] * 3, "random_forest", **forest)
    (difference,), problems = differences_in(tmp_path)
    assert (difference.property, difference.against, difference.n_runs, difference.n_test) == (
        "formation_energy",
        "random_forest",
        3,
        3,
    )
    assert (difference.mean, difference.high, problems) == (
        pytest.approx(-0.2),
        pytest.approx(-0.2),
        {},
    )


def test_without_any_predictions_there_is_no_section_but_a_note(tmp_path):
    write_run(tmp_path, 0.1)
    write_run(tmp_path, 0.2, "ridge")
    report = make_tables(tmp_path)
    assert "differences" not in {section.name for section in report.sections}
    assert len(report.findings.problems) == 2


def nothing(path):
    path.unlink()


def cut_short(path):
    path.write_bytes(path.read_bytes()[:200])


def not_an_archive(path):
    path.write_bytes(b"no numbers")


def pickled(path):
    np.savez(
        path,
        **{
            name: np.array([{}], object)
            for name in ("material_id", "formula", "target", "prediction")
        },
    )


def a_bare_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(4))


def changed(**arrays):
    def change(path):
        with np.load(path) as file:
            np.savez(path, **dict(file) | arrays)

    change.__name__ = "_".join(arrays)
    return change


def without_targets(path):
    with np.load(path) as file:
        np.savez(path, **{name: file[name] for name in ("material_id", "formula", "prediction")})


def damaged(path):
    """An archive whose bytes do not have their checksum."""
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("prediction.npy").header_offset
    content = bytearray(path.read_bytes())
    content[offset + 200] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (nothing, "is missing"),
        (cut_short, "cannot be read"),
        (not_an_archive, "cannot be read"),
        (pickled, "cannot be read"),
        (a_bare_array, "cannot be read"),
        (without_targets, "cannot be read"),
        (damaged, "cannot be read"),
        (changed(prediction=np.zeros((4, 2))), "one-dimensional arrays of equal length"),
        (changed(prediction=np.zeros(3)), "one-dimensional arrays of equal length"),
        (changed(prediction=np.full(4, np.nan)), "finite"),
        (changed(prediction=np.zeros(4)), "its MAE is 2.5, not 0.11"),
        (changed(material_id=np.array(["a", "b", "c", "d"])), "has test rows that differ"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_predictions_that_cannot_be_used_are_a_note_and_the_rest_is_compared(
    tmp_path, harm, sentence
):
    write_irnet_and_forest(tmp_path)
    folder = next(run.folder for run in collect_runs(tmp_path)[0] if run.spec.seed == 1)
    harm(folder / FILE)
    (difference,), problems = differences_in(tmp_path)
    assert (difference.n_runs, difference.mean, difference.low) == (2, pytest.approx(-0.19), None)
    (note,) = problem_notes(problems)
    assert len(note.lines) == 1 and str(folder) in note.lines[0] and sentence in note.lines[0]
