"""One property across tables: training rows, held-out chemistry, and the course of training."""

import numpy as np
import pandas as pd
import pytest

from irnet_hpc.aggregate.cli import document, sections_of, unread
from irnet_hpc.aggregate.curves import convergence
from irnet_hpc.aggregate.figures import convergence_curves, mae_against_rows
from irnet_hpc.aggregate.render import tidy_csv
from irnet_hpc.aggregate.sections.ensembles import ensembles_section, with_ensembles
from irnet_hpc.aggregate.sections.series import (
    chemistry_section,
    chemistry_series,
    size_section,
    size_series,
)
from irnet_hpc.runs.predictions import FILE
from irnet_hpc.runs.recipes import RECIPES
from tests.aggregate.test_aggregate import aggregate, tables_of, write_run
from tests.aggregate.test_differences import FORMULAS, write_predictions
from tests.aggregate.test_splits_in_tables import write_split


def texts(block):
    return [[text for text, _ in line] for line in block.lines]


def write_sizes(results):
    """IRNet 0.20 ± 0.0141421 of 100 rows, 0.10 of all 1,000; the best classical is the forest of few rows, ridge of many."""
    for seed in range(2):
        write_run(results, 0.19 + 0.02 * seed, seed=seed, train_rows=100, n_train=100)
    write_run(results, 0.10, n_train=1000)
    write_run(results, 0.30, "plain-17", n_train=1000)
    for model, few, many in (("random_forest", 0.15, 0.14), ("ridge", 0.25, 0.12)):
        write_run(results, few, model, train_rows=100, n_train=100)
        write_run(results, many, model, n_train=1000)


def test_mae_against_training_rows_has_a_line_a_number_of_rows_with_its_own_best_classical_model(
    tmp_path,
):
    write_sizes(tmp_path)
    ours, theirs = sorted(
        size_series(tables_of(tmp_path)), key=lambda series: series.of.recipe == "grid"
    )
    assert [model[0] for model in theirs.models] == ["ridge", "random_forest"]
    (block, _) = size_section([ours, theirs]).blocks
    assert block.title == "formation_energy, oqmd-magpie, recipe onecycle, protocol honest"
    assert texts(block) == [
        ["training rows", "baseline (eV/atom)", "best classical", "plain-17", "irnet-17"],
        ["100", "0.500", "random_forest 0.150 (n=1)", "not run", "0.200 ± 0.014 (n=2)"],
        ["1,000", "0.5000", "ridge 0.1200 (n=1)", "0.3000 (n=1)", "0.1000 (n=1)"],
    ]
    assert [[bold for _, bold in line].index(True) for line in block.lines[1:]] == [2, 4]


def test_a_single_number_of_rows_or_unlike_protocols_and_recipes_are_no_series(tmp_path):
    write_run(tmp_path, 0.1)
    write_run(tmp_path, 0.1, train_rows=50, n_train=50, protocol="paper", recipe=RECIPES["paper"])
    write_run(tmp_path, 0.1, train_rows=50, n_train=50, property="band_gap")
    assert size_series(tables_of(tmp_path)) == ()


def test_the_command_writes_size_csv_and_a_log_log_figure(tmp_path):
    write_sizes(tmp_path / "results")
    done = aggregate(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    frame = pd.read_csv(folder / "size.csv")
    networks = frame[(frame["recipe"] == "onecycle") & (frame["best_classical"] == 0)]
    few = networks[(networks["model"] == "irnet-17") & (networks["n_train"] == 100)].iloc[0]
    assert (few["test_mae_mean"], few["n_runs"], few["train_rows"]) == (pytest.approx(0.2), 2, 100)
    assert list(frame[frame["best_classical"] == 1]["model"]) == ["random_forest", "ridge"]
    assert "## MAE against training rows" in (folder / "mae.md").read_text()
    figure = folder / "mae_vs_rows-formation_energy_oqmd-magpie_onecycle_honest.png"
    assert figure.read_bytes().startswith(b"\x89PNG") and figure.with_suffix(".pdf").exists()


def test_the_figure_against_rows_is_logarithmic_and_has_a_line_a_model(tmp_path):
    write_sizes(tmp_path)
    series = next(
        series for series in size_series(tables_of(tmp_path)) if series.of.recipe != "grid"
    )
    (panel,) = mae_against_rows(series).axes
    lines = {container.get_label(): container.lines[0] for container in panel.containers}
    assert list(lines) == ["plain-17", "irnet-17", "best classical"]
    assert lines["irnet-17"].get_xdata().tolist() == [100, 1000]
    assert lines["irnet-17"].get_ydata().tolist() == pytest.approx([0.2, 0.1])
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")


OXYGEN = {"split": {"by": "element", "elements": ["O"], "seed": 0}}
HALOGENS = {"split": {"by": "family", "family": "halogens", "elements": ["F", "Cl"], "seed": 0}}


def test_held_out_chemistry_stands_beside_the_random_split_of_the_same_pack(tmp_path):
    for split in range(2):
        write_split(tmp_path, 0.1 + 0.02 * split, split)
    write_split(tmp_path, 0.3, pack="oqmd-magpie-element_O", identity=OXYGEN, n_train=60, n_test=30)
    write_split(
        tmp_path, 0.9, pack="oqmd-magpie-family_halogens", identity=HALOGENS, n_train=50, n_test=40
    )
    write_split(
        tmp_path, 0.2, pack="mp-magpie-element_O", identity=OXYGEN | {"source_sha256": "c" * 64}
    )
    (series,) = chemistry_series(tables_of(tmp_path))
    (block,) = chemistry_section([series]).blocks
    assert block.title == "formation_energy, oqmd-magpie, recipe onecycle, protocol honest"
    assert texts(block) == [
        ["test", "training rows", "test rows", "baseline (eV/atom)", "irnet-17"],
        ["random", "80", "10", "0.550", "0.110 ± 0.014 (n=2)"],
        ["element O", "60", "30", "0.5000", "0.3000 (n=1)"],
        ["family halogens", "50", "40", "0.5000", "0.9000 (n=1)"],
    ]
    assert [line[3].bold for line in block.lines[1:]] == [
        False,
        False,
        True,
    ]  # worse than the train median
    records = chemistry_section([series]).records
    assert [(line["test"], line["test_mae_mean"]) for line in records][1:] == [
        ("element O", 0.3),
        ("family halogens", 0.9),
    ]


def test_held_out_chemistry_of_fewer_training_rows_says_so_and_has_a_name_of_its_own(tmp_path):
    for rows in (None, 40):
        write_split(tmp_path, 0.1, 0, train_rows=rows)
        write_split(tmp_path, 0.3, pack="oqmd-magpie-element_O", identity=OXYGEN, train_rows=rows)
    everything, few = chemistry_series(tables_of(tmp_path))
    assert (
        few.title
        == "formation_energy, oqmd-magpie, recipe onecycle, protocol honest, first 40 training rows"
    )
    assert (everything.name, few.name) == (
        "formation_energy_oqmd-magpie_onecycle_honest",
        "formation_energy_oqmd-magpie_onecycle_honest_n40",
    )


def test_starts_from_origins_of_the_same_split_stand_in_one_table_of_chemistry(tmp_path):
    for suffix, identity in (("", {}), ("-element_O", OXYGEN)):
        origin = {
            "pack": f"oqmd-magpie{suffix}",
            "property": "band_gap",
            "model": "irnet-17",
            "recipe": "onecycle",
            "key": "k",
        }
        start = {
            "start_from": "0" * 16,
            "origin": origin | {"protocol": "honest", "n_shared_test": 0},
        }
        write_split(tmp_path, 0.1, pack=f"jarvis-magpie{suffix}", identity=identity, **start)
    (series,) = chemistry_series(tables_of(tmp_path))
    assert series.of.start_from == "oqmd-magpie band_gap"
    assert [point.test for point in series.points] == ["random", "element O"]


def test_splits_that_hold_nothing_out_are_no_chemistry(tmp_path):
    write_split(tmp_path, 0.1, 0)
    write_split(tmp_path, 0.1, 0, pack="copy")
    write_split(tmp_path, 0.1, 0, pack="own", identity={"split": {"by": "column"}})
    assert chemistry_series(tables_of(tmp_path)) == ()


def test_the_mean_of_the_seeds_predictions_has_the_mae_worked_out_by_hand(tmp_path):
    """Errors +0.3, +0.1 and -0.1, +0.1: MAEs 0.2 and 0.1; of their mean, +0.1 and +0.1: 0.1, a third below 0.15."""
    write_predictions(write_run, tmp_path, [0.3, 0.1], seed=0)
    write_predictions(write_run, tmp_path, [-0.1, 0.1], seed=1)
    write_predictions(write_run, tmp_path, [0.1, 0.1], "plain-17")  # one seed is no ensemble
    problems = {}
    tables = with_ensembles(tables_of(tmp_path), problems)
    plain, irnet = tables[0].rows[0].cells
    assert (irnet.ensemble_mae, irnet.mae, plain.ensemble_mae, problems) == (
        *map(pytest.approx, (0.1, 0.15)),
        None,
        {},
    )
    (block,) = ensembles_section(tables).blocks
    assert texts(block)[1] == [
        "formation_energy (eV/atom)",
        "one seed a split",
        "0.100 (of 2, +33.3 %)",
    ]
    (tmp_path / "tidy.csv").write_text(tidy_csv(tables))
    frame = pd.read_csv(tmp_path / "tidy.csv").set_index("model")
    assert frame.loc["irnet-17", "ensemble_mae"] == pytest.approx(0.1)
    assert frame.loc["irnet-17", "test_mae_mean"] == pytest.approx(0.15)
    assert pd.isna(frame.loc["plain-17", "ensemble_mae"])


def test_over_splits_it_is_the_mean_of_theirs_and_each_needs_two_seeds(tmp_path):
    for split in range(2):
        for seed in range(2):
            write_predictions(
                write_split,
                tmp_path,
                [(0.1 + 0.1 * split) * (3 if seed else -1)] * 2,
                split,
                seed=seed,
            )
    (table,) = with_ensembles(tables_of(tmp_path), {})
    assert table.rows[0].cells[0].ensemble_mae == pytest.approx(0.15)  # 0.1 and 0.2
    assert texts(ensembles_section([table]).blocks[0])[1][1] == "0.15 (of 2, 2 splits, +50.0 %)"
    write_predictions(write_split, tmp_path, [0.1, 0.1], 2)
    (table,) = with_ensembles(tables_of(tmp_path), {})
    assert table.rows[0].cells[0].ensemble_mae is None


def test_an_ensemble_of_which_a_run_cannot_be_read_is_none_and_a_note(tmp_path):
    write_predictions(write_run, tmp_path, [0.3, 0.1], seed=0)
    folder = write_predictions(write_run, tmp_path, [-0.1, 0.1], seed=1)
    with np.load(folder / FILE) as file:
        np.savez(folder / FILE, **dict(file) | {"formula": FORMULAS[2:4]})
    problems = {}
    tables = with_ensembles(tables_of(tmp_path), problems)
    assert tables[0].rows[0].cells[0].ensemble_mae is None
    assert ensembles_section(tables).blocks == ()
    (note,) = unread(problems)
    assert "of other test rows" in note.lines[0]


def write_history(folder, maes):
    lines = [f"{epoch},{10 * epoch},0.001,0.1,{mae},1.0" for epoch, mae in enumerate(maes, start=1)]
    (folder / "history.csv").write_text(
        "\n".join(["epoch,step,lr,train_mae,val_mae,seconds", *lines]) + "\n"
    )


def test_convergence_is_the_mean_over_runs_at_the_epochs_that_all_have(tmp_path):
    write_history(write_run(tmp_path, 0.1, seed=0), [0.4, 0.2, 0.1])
    write_history(write_run(tmp_path, 0.1, seed=1), [0.6, 0.4])
    write_history(write_run(tmp_path, 0.1, "plain-17"), [0.9, "inf", 0.5])
    write_history(write_run(tmp_path, 0.1, "plain-48"), [0.8])
    write_run(tmp_path, 0.1, "srnet-17")  # has no history
    problems = {}
    (training,) = convergence(tables_of(tmp_path), problems)
    (depth, (plain, irnet)), (other, _) = training.panels
    assert (depth, other, problems) == (17, 48, {})
    assert (plain.architecture, plain.epochs, plain.maes) == ("plain", (1, 3), (0.9, 0.5))
    assert (irnet.epochs, irnet.maes, irnet.n) == ((1, 2), pytest.approx((0.5, 0.3)), 2)
    panels = [panel for panel in convergence_curves(training).axes if panel.get_visible()]
    assert [panel.get_title(loc="left") for panel in panels] == ["depth 17", "depth 48"]
    assert panels[0].get_yscale() == "log"
    assert {line.get_label(): line.get_ydata().tolist() for line in panels[0].lines} == {
        "plain": [0.9, 0.5],
        "IRNet": pytest.approx([0.5, 0.3]),
    }
    assert panels[0].get_ylabel().startswith("MAE on val of")
    # history.csv counts epochs from 0, people from 1; and no epoch is half of one
    assert [line.get_xdata().tolist() for line in panels[0].lines] == [[2, 4], [2, 3]]
    assert all(tick == int(tick) for tick in panels[0].get_xticks())


@pytest.mark.parametrize(
    "content",
    [b"epoch,step\n1,2\n", b"epoch,val_mae\nx,y\n", b"\xff\xfe\x00", b"epoch,val_mae\n1\n"],
)
def test_a_history_that_cannot_be_read_is_a_note(tmp_path, content):
    folder = write_run(tmp_path, 0.1)
    (folder / "history.csv").write_bytes(content)
    problems = {}
    assert convergence(tables_of(tmp_path), problems) == ()
    (note,) = unread(problems)
    assert str(folder) in note.lines[0]


def test_the_command_draws_convergence_a_figure_a_property(tmp_path):
    write_history(write_run(tmp_path / "results", 0.1), [0.4, 0.2])
    done = aggregate(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    name = "convergence-formation_energy_oqmd-magpie_onecycle_honest"
    assert {path.name for path in folder.iterdir()} == {
        *("mae.md", "mae.csv", "mae.json", "mae.tex", f"{name}.png", f"{name}.pdf")
    }


def test_all_sections_are_in_the_document_in_order_and_notes_come_last(tmp_path):
    write_sizes(tmp_path)
    tables = tables_of(tmp_path)
    problems = {}
    sections = sections_of(tables, size_series(tables), problems)
    text = document(tables, unread(problems), sections=sections)
    assert (
        text.index("Test MAE, mean ± sd")
        < text.index("## MAE against training rows")
        < text.index("## Notes")
    )
    assert (
        len(problems) == 6
    )  # predictions that the differences wanted: of the worse classical models they want none
