"""Tasks and the best of each."""

from irnet_hpc.aggregate.sections import tasks
from irnet_hpc.aggregate.task_results import tasks_of
from irnet_hpc.runs.recipes import RECIPES
from tests.aggregate.results import described, findings_of, tables_of, texts, write_run


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
    assert (task.name, task.best.features, task.best.score.mae) == (
        "oqmd formation_energy",
        "elements",
        0.05,
    )
    assert [result.score.mae for result in task.results] == [
        0.05,
        0.04,
    ]  # nothing that was selected on test
    (block,) = tasks.best_of_each(findings_of(tmp_path)).blocks
    line = dict(zip(texts(block)[0], texts(block)[1], strict=True))
    assert (line["task"], line["test MAE"], line["below baseline"]) == (
        *("oqmd formation_energy (eV/atom)", "0.05000 (n=1)", "+90.0 %"),
    )
    assert (line["published"], line["its protocol"], line["its rows"]) == (
        *("hotcrab 0.031008", "70:15:15 fixed, honest", "341,700"),
    )
    assert "best classical" not in line  # no task has one


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
    assert [task.name for task in tasks_of(tables_of(tmp_path))] == [
        *("oqmd formation_energy", "oqmd band_gap", "oqmd-family_halogens formation_energy"),
    ]
