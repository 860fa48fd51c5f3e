"""Predictions read back, and differences of models on the same rows: numbers worked out by hand."""

import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest

from irnet_hpc.aggregate.cli import collect_runs, sections_of, unread
from irnet_hpc.aggregate.sections.differences import differences, differences_section
from irnet_hpc.aggregate.statistics import paired_interval
from irnet_hpc.files import write_json
from irnet_hpc.runs.predictions import FILE
from irnet_hpc.runs.recipes import RECIPES
from tests.aggregate.test_aggregate import aggregate, tables_of, write_run
from tests.aggregate.test_joint_tables import PAIR, of_one, write_joint
from tests.aggregate.test_splits_in_tables import write_split

FORMULAS = np.array(["Fe2O3", "Fe2O3", "NaCl", "MgO"])


def write_predictions(write, results, errors, *arguments, **changes):
    """A run whose predictions are off by `errors` (n_rows,), its test MAE being theirs; `write` writes its result. Other
    `rows` are those of another split."""
    errors, rows = np.array(errors, float), changes.pop("rows", 0)
    folder = write(results, float(np.abs(errors).mean()), *arguments, n_test=len(errors), **changes)
    target = np.arange(1.0, 1 + len(errors)) + 10 * rows
    ids = np.array([f"m{rows}-{number}" for number in range(len(errors))])
    np.savez(
        folder / FILE,
        material_id=ids,
        formula=FORMULAS[: len(errors)],
        target=target,
        prediction=target + errors,
    )
    return folder


def write_irnet_and_forest(results, n_seeds=3):
    """IRNet: every error of seed k is 0.1 + 0.01 k; the forest's are 0.2, -0.2, 0.3, 0.5: MAE 0.3."""
    for seed in range(n_seeds):
        write_predictions(write_run, results, [0.1 + 0.01 * seed] * 4, "irnet-17", seed=seed)
    return write_predictions(write_run, results, [0.2, -0.2, 0.3, 0.5], "random_forest")


def made(results):
    problems = {}
    return [
        one for _, of_table in differences(tables_of(results), problems) for one in of_table
    ], problems


def test_irnet_against_the_best_classical_model_is_the_mean_difference_of_absolute_errors(tmp_path):
    """Seeds 0.10, 0.11 and 0.12 less 0.3: -0.19, which is 63.3 % of 0.3."""
    write_irnet_and_forest(tmp_path)
    (one,), problems = made(tmp_path)
    assert (one.model, one.against, problems) == ("irnet-17", "random_forest", {})
    assert (one.mean, one.percent) == (pytest.approx(-0.19), pytest.approx(-63.3333, rel=1e-5))
    assert (one.n_splits, one.n_runs, one.n_runs_against, one.n_test) == (1, 3, 1, 4)
    ours = np.array([[0.10] * 4, [0.11] * 4, [0.12] * 4])
    theirs = np.array([[0.2, 0.2, 0.3, 0.5]])
    expected = paired_interval([ours], [theirs], [np.array([0, 0, 2, 1])])
    assert (one.low, one.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert one.excludes_zero is (expected.high < 0)


def test_irnet_is_compared_with_the_plain_network_of_its_depth_and_with_no_other(tmp_path):
    """Seeds 0.10, 0.11 and 0.12 less 0.2, 0.21 and 0.22: -0.10, of 0.21; plain-48 has a depth that no IRNet has."""
    for seed in range(3):
        write_predictions(write_run, tmp_path, [0.1 + 0.01 * seed] * 4, "irnet-17", seed=seed)
        write_predictions(write_run, tmp_path, [0.2 + 0.01 * seed] * 4, "plain-17", seed=seed)
        write_predictions(write_run, tmp_path, [0.5] * 4, "plain-48", seed=seed)
    (one,), problems = made(tmp_path)
    assert (one.model, one.against, one.n_runs_against, problems) == ("irnet-17", "plain-17", 3, {})
    assert (one.mean, one.percent) == (pytest.approx(-0.1), pytest.approx(-100 * 0.1 / 0.21))


def test_below_three_runs_nothing_is_claimed(tmp_path):
    write_irnet_and_forest(tmp_path, n_seeds=2)
    (one,), _ = made(tmp_path)
    assert (one.mean, one.low, one.excludes_zero) == (pytest.approx(-0.195), None, None)
    (block,) = differences_section(tables_of(tmp_path), {}).blocks
    named = dict(zip(*([text for text, _ in line] for line in block.lines), strict=True))
    assert (named["95 % interval"], named["excludes zero"], named["splits × seeds"]) == (
        "n < 3",
        "n < 3",
        "1 × 2",
    )


def test_three_splits_of_one_seed_are_three_runs_paired_by_split(tmp_path):
    """IRNet is 0.1 better in each of splits 0, 1 and 2; of split 3 the forest has no run, and it does not count."""
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
    (one,), _ = made(tmp_path)
    assert (one.n_splits, one.n_runs, one.n_test) == (3, 3, 6)
    assert (one.mean, one.low, one.high) == tuple(map(pytest.approx, (-0.1, -0.1, -0.1)))
    assert one.excludes_zero
    (block,) = differences_section(tables_of(tmp_path), {}).blocks
    assert [text for text, _ in block.lines[1]][-3:] == ["3 × 1", "3 × 1", "6"]


def test_transfer_is_compared_with_the_same_model_from_scratch_and_with_the_best_classical(
    tmp_path,
):
    """From scratch 0.20, 0.21, 0.22; transferred 0.15, 0.16, 0.17: 0.05 less, 23.8 % of 0.21. The forest has 0.3."""
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
    found, _ = made(tmp_path)
    assert {one.against: (round(one.mean, 9), one.excludes_zero) for one in found} == {
        "from scratch": (-0.05, True),
        "random_forest": (-0.14, True),
    }
    assert found[0].percent == pytest.approx(-23.8095, rel=1e-5)


def test_splits_that_share_their_test_rows_are_runs_on_one_draw_of_rows(tmp_path):
    """Where oxygen is held out, the split's seed moves train and val only: 3 x 1 runs, but 4 test rows and not 12."""
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
    (one,), _ = made(tmp_path)
    expected = paired_interval([ours], [theirs], [np.array([0, 0, 2, 1])])
    assert (one.n_splits, one.n_runs, one.n_test) == (3, 3, 4)
    assert (one.mean, one.low, one.high) == tuple(map(pytest.approx, expected))


def test_a_recipe_for_going_on_is_compared_with_the_other_recipes_from_scratch(tmp_path):
    for seed in range(3):
        write_predictions(write_run, tmp_path, [0.2] * 4, "plain-17", seed=seed)
        going_on = {"recipe": RECIPES["paper"], "start_from": "0123456789abcdef"}
        write_predictions(write_run, tmp_path, [0.15] * 4, "plain-17", seed=seed, **going_on)
    (one,), _ = made(tmp_path)
    assert (one.against, one.mean) == ("from scratch, recipe onecycle", pytest.approx(-0.05))
    for seed in range(
        3
    ):  # from scratch it is a weak rival, which must not stand in for the strong one
        write_predictions(
            write_run, tmp_path, [0.4] * 4, "plain-17", seed=seed, recipe=RECIPES["paper"]
        )
    found, _ = made(tmp_path)
    assert {one.against: one.mean for one in found} == {
        "from scratch": pytest.approx(-0.25),
        "from scratch, recipe onecycle": pytest.approx(-0.05),
    }


def test_of_a_network_of_several_properties_one_is_compared_on_the_rows_that_report_it(tmp_path):
    """Energies of three rows off by 0.1, the forest's by 0.3; the gap of the second row is not reported."""
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
    (one,), problems = made(tmp_path)
    assert (one.property, one.against, one.n_runs, one.n_test) == (
        "formation_energy",
        "random_forest",
        3,
        3,
    )
    assert (one.mean, one.high, problems) == (pytest.approx(-0.2), pytest.approx(-0.2), {})


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
    content, text = io.BytesIO(path.read_bytes()), None
    with zipfile.ZipFile(content) as archive:
        offset = archive.getinfo("prediction.npy").header_offset
    text = bytearray(content.getvalue())
    text[offset + 200] ^= 0xFF
    path.write_bytes(bytes(text))


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
        (changed(prediction=np.zeros((4, 2))), "arrays of one dimension and one length"),
        (changed(prediction=np.zeros(3)), "arrays of one dimension and one length"),
        (changed(prediction=np.full(4, np.nan)), "finite"),
        (changed(prediction=np.zeros(4)), "is not that of result.json: MAE 2.5 and 0.11"),
        (changed(material_id=np.array(["a", "b", "c", "d"])), "of other test rows"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_predictions_that_cannot_be_used_are_a_note_and_the_rest_is_compared(
    tmp_path, harm, sentence
):
    write_irnet_and_forest(tmp_path)
    folder = next(run.folder for run in collect_runs(tmp_path)[0] if run.spec.seed == 1)
    harm(folder / FILE)
    (one,), problems = made(tmp_path)
    assert (one.n_runs, one.mean, one.low) == (2, pytest.approx(-0.19), None)
    (note,) = unread(problems)
    assert len(note.lines) == 1 and str(folder) in note.lines[0] and sentence in note.lines[0]


def test_without_any_predictions_there_is_no_section_but_a_note(tmp_path):
    write_run(tmp_path, 0.1)
    write_run(tmp_path, 0.2, "ridge")
    problems = {}
    assert "differences" not in {
        section.name for section in sections_of(tables_of(tmp_path), (), problems)
    }
    assert len(problems) == 2


def test_the_command_writes_the_differences_in_all_forms(tmp_path):
    write_irnet_and_forest(tmp_path / "results")
    done = aggregate(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    line = pd.read_csv(folder / "differences.csv").loc[0]
    assert (line["model"], line["against"], line["unit"]) == (
        "irnet-17",
        "random_forest",
        "eV/atom",
    )
    assert line["mean"] == pytest.approx(-0.19) and line["low"] < -0.19 < line["high"]
    assert line["excludes_zero"] in (0, 1)
    text = (folder / "mae.md").read_text()
    assert "## Differences\n" in text and "-63.3 %" in text and "1 × 3" in text
    assert r"$\times$" in (folder / "mae.tex").read_text()
    again = (folder / "differences.csv").read_bytes()
    assert aggregate(cwd=tmp_path).returncode == 0
    assert (folder / "differences.csv").read_bytes() == again
