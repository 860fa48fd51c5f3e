"""Questions over several tables: the best of a task, representations, cost, ranks, depth; and why a cell is empty."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from irnet_hpc.aggregate.cli import sections_of
from irnet_hpc.aggregate.figures import critical_difference
from irnet_hpc.aggregate.render import grid
from irnet_hpc.aggregate.sections.cost import costs_section
from irnet_hpc.aggregate.sections.depths import depths_section
from irnet_hpc.aggregate.sections.ranks import Ranking, ranking_of, rankings_section
from irnet_hpc.aggregate.sections.representations import representations_section
from irnet_hpc.aggregate.sections.tasks import tasks_of, tasks_section
from irnet_hpc.aggregate.tables import tabulate
from irnet_hpc.files import write_json
from irnet_hpc.runs.collect import collect_runs
from irnet_hpc.runs.recipes import RECIPES
from tests.aggregate.test_aggregate import aggregate, tables_of, write_run


def texts(block):
    return [[text for text, _ in line] for line in block.lines]


def described(features):
    return {"pack": f"oqmd-{features}", "identity": {"source": "oqmd", "features": features}}


def test_the_best_of_a_task_is_chosen_by_val_over_its_representations(tmp_path):
    """By test the first were the best, by val the second is."""
    write_run(tmp_path, 0.04, val_mae=0.06, **described("magpie"))
    write_run(tmp_path, 0.05, val_mae=0.03, **described("elements"))
    write_run(
        tmp_path,
        0.01,
        val_mae=0.01,
        **described("magpie"),
        protocol="paper",
        recipe=RECIPES["paper"],
    )
    (task,) = tasks_of(tables_of(tmp_path))
    assert (task.name, task.best.features, task.best.cell.mae) == (
        "oqmd formation_energy",
        "elements",
        0.05,
    )
    assert [entry.cell.mae for entry in task.entries] == [
        0.05,
        0.04,
    ]  # nothing that was selected on test
    (block,) = tasks_section([task]).blocks
    line = dict(zip(texts(block)[0], texts(block)[1], strict=True))
    assert (line["task"], line["test MAE"], line["below baseline"]) == (
        *("oqmd formation_energy (eV/atom)", "0.05000 (n=1)", "+90.0 %"),
    )
    assert (line["published"], line["its protocol"], line["its rows"]) == (
        *("hotcrab 0.031008", "70:15:15 fixed, honest", "341,700"),
    )
    assert line["best classical"] == "not run"


def test_other_chemistry_and_another_property_are_other_tasks(tmp_path):
    split = {"by": "family", "family": "halogens", "elements": ["F"], "seed": 0}
    write_run(tmp_path, 0.1, **described("magpie"))
    write_run(
        tmp_path,
        0.3,
        pack="oqmd-magpie-family_halogens",
        identity={"features": "magpie", "split": split},
    )
    write_run(tmp_path, 0.2, property="band_gap", unit="eV", **described("magpie"))
    tasks = tasks_of(tables_of(tmp_path))
    assert [task.name for task in tasks] == [
        *("oqmd formation_energy", "oqmd band_gap", "oqmd-family_halogens formation_energy"),
    ]


def test_representations_stand_side_by_side_where_all_else_is_alike(tmp_path):
    write_run(tmp_path, 0.06, **described("magpie"))
    write_run(tmp_path, 0.05, **described("elements"))
    write_run(tmp_path, 0.09, "plain-17", **described("magpie"))
    section = representations_section(tasks_of(tables_of(tmp_path)))
    (block,) = section.blocks
    assert texts(block) == [
        ["model", "recipe", "training rows", "test rows", "elements", "magpie"],
        ["irnet-17", "onecycle", "80", "10", "0.05000 (n=1)", "0.06000 (n=1)"],
    ]
    assert [bold for _, bold in block.lines[1]][4:] == [True, False]
    assert {line["features"] for line in section.records} == {"elements", "magpie"}


def test_cost_marks_what_nothing_beats_in_both_mae_and_hours(tmp_path):
    write_run(tmp_path, 0.10, "plain-17", device_hours=1.0, n_parameters=4_705_665)
    write_run(tmp_path, 0.08, "irnet-17", device_hours=2.0)
    write_run(
        tmp_path, 0.09, "irnet-48", device_hours=4.0, n_parameters=None
    )  # dearer than irnet-17, and worse
    for seed in (1, 2):
        write_run(tmp_path, 0.08, "irnet-17", device_hours=2.0 + seed, seed=seed)
    (block,) = costs_section(tables_of(tmp_path)).blocks
    lines = {line[0].text: [cell.text for cell in line] for line in block.lines}
    assert lines["plain-17"][2:5] == ["4,705,665", "1", "1"]
    assert lines["irnet-17"][3:5] == ["3", "3"]  # (2 + 3 + 4) / 3 hours a run
    assert lines["irnet-48"][2] == "not counted"
    assert [line[0].text for line in block.lines if line[3].bold] == ["plain-17", "irnet-17"]


def test_architecture_times_depth_is_a_table_of_its_own_where_networks_are_many(tmp_path):
    for model in (
        "plain-10",
        "plain-17",
        "plain-48",
        "irnet-10",
        "irnet-17",
        "irnet-48",
        "brnet-17",
    ):
        write_run(tmp_path, 0.1, model)
    (block,) = depths_section(tables_of(tmp_path)).blocks
    assert texts(block)[0] == ["architecture", "10 layers", "17 layers", "48 layers"]
    assert texts(block)[-1] == ["brnet", "does not exist", "0.1000 (n=1)", "does not exist"]


def test_an_empty_cell_says_why(tmp_path):
    """plain-17 and irnet-17 have formation energies; of band gaps irnet-17 failed, plain-17 is under way, irnet-48 has failed
    everywhere, srnet-17 has one and nobody asked for the other."""
    write_run(tmp_path, 0.1, "plain-17")
    write_run(tmp_path, 0.1, "irnet-17")
    gap = {"property": "band_gap", "unit": "eV"}
    write_run(tmp_path, 0.1, "srnet-17", **gap)
    under_way = write_run(tmp_path, 0.1, "plain-17", **gap)
    failed = [write_run(tmp_path, 0.1, model, **gap) for model in ("irnet-17", "irnet-48")]
    for folder in (under_way, *failed):
        (folder / "result.json").unlink()
    for folder in failed:
        write_json(folder / "error.json", {"error": "out of memory"})
    elsewhere = write_run(
        tmp_path, 0.1, "plain-48", **gap, train_rows=50, n_train=50
    )  # of another table
    (elsewhere / "result.json").unlink()
    runs, gaps = collect_runs(tmp_path)
    (table,) = tabulate(runs, gaps.values())
    lines = [
        dict(zip([text for text, _ in grid(table)[0]], [text for text, _ in line], strict=True))
        for line in grid(table)
    ]
    energy, band_gap = lines[1:]
    assert (energy["srnet-17"], energy["irnet-48"]) == ("not run", "not run")
    assert [band_gap[model] for model in ("plain-17", "irnet-17", "irnet-48")] == [
        "unfinished",
        "failed",
        "failed",
    ]
    assert band_gap["irnet vs plain, 17"] == "no irnet"
    assert "plain-48" not in energy


def write_ranked(results, n_tasks):
    """On every task irnet-17 is the best, then srnet-17, then plain-17, but on the first, where plain-17 is the best."""
    order = {"plain-17": 0.3, "srnet-17": 0.2, "irnet-17": 0.1}
    for task in range(n_tasks):
        for model, mae in order.items():
            write_run(
                results,
                0.05 if task == 0 and model == "plain-17" else mae,
                model,
                property=f"p{task}",
            )
    write_run(results, 0.01, "irnet-48", property="p1")


@pytest.mark.parametrize(("n_tasks", "claimed"), [(7, False), (8, True)])
def test_ranks_are_means_over_tasks_and_a_critical_difference_is_claimed_from_eight_on(
    tmp_path, n_tasks, claimed
):
    """Ranks of irnet: 2 once, else 1; of srnet 3, else 2; of plain 1, else 3."""
    write_ranked(tmp_path, n_tasks)
    ranking = ranking_of(tables_of(tmp_path))
    assert [model.partition(",")[0] for model in ranking.models] == [
        "irnet-17",
        "srnet-17",
        "plain-17",
    ]
    n = n_tasks
    assert ranking.ranks == pytest.approx(
        ((2 + n - 1) / n, (3 + 2 * (n - 1)) / n, (1 + 3 * (n - 1)) / n)
    )
    assert (ranking.wins, ranking.left_out) == ((n - 1, 0, 1), (("irnet-48, onecycle", 1),))
    assert (ranking.critical_difference is not None) is claimed
    if claimed:
        ranks = np.array([[1, 3, 2]] + [[3, 2, 1]] * (n - 1))
        assert ranking.chi2 == pytest.approx(stats.friedmanchisquare(*ranks.T).statistic)
        assert ranking.critical_difference == pytest.approx(
            2.343 * (3 * 4 / (6 * 8)) ** 0.5, abs=2e-3
        )  # 1.17
        assert ranking.cliques == (
            (0, 1),
            (1, 2),
        )  # 1.125, 2.125 and 2.75: neighbours are not distinguishable, the ends are
        figure = critical_difference(ranking)
        assert {"critical difference 1.17"} <= {text.get_text() for text in figure.axes[0].texts}
    (block,) = rankings_section(ranking).blocks
    assert ("too few" in block.title) is not claimed


def test_ranks_within_the_critical_difference_are_joined_in_the_longest_bars():
    ranking = Ranking(
        ("a", "b", "c", "d"), (1.0, 1.5, 1.9, 3.9), (0,) * 4, ("t",) * 9, (), 9, 1.0, 0.5, 1.0
    )
    assert ranking.cliques == ((0, 2),)


def test_the_command_writes_every_form_from_one_computation(tmp_path):
    write_ranked(tmp_path / "results", 8)
    done = aggregate(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    told = json.loads((folder / "mae.json").read_text())
    frame = pd.read_csv(folder / "mae.csv")
    cells = [
        cell
        for table in told["tables"]
        for row in table["rows"]
        for cell in row["cells"]
        if "missing" not in cell
    ]
    assert [cell["test_mae_mean"] for cell in cells] == frame["test_mae_mean"].tolist()
    missing = [
        cell["missing"]
        for table in told["tables"]
        for row in table["rows"]
        for cell in row["cells"]
        if "missing" in cell
    ]
    assert missing == ["not run"] * 7  # irnet-48
    assert told["sections"]["ranks"][0]["n_tasks"] == 8
    assert (folder / "ranks.csv").exists() and (folder / "critical_difference.pdf").exists()
    assert all(
        "Ranks over all tasks" in (folder / name).read_text() for name in ("mae.md", "mae.tex")
    )


def test_one_table_alone_needs_no_section_of_tasks(tmp_path):
    write_run(tmp_path, 0.1)
    assert sections_of(tables_of(tmp_path), (), {}) == ()
