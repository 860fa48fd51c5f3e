"""Results -> tables, with numbers worked out by hand."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from irnet_hpc.aggregate.cli import Note, ask_ledger, collect_runs, document, footer, legend
from irnet_hpc.aggregate.figures import mae_against_depth
from irnet_hpc.aggregate.formats import escape_latex
from irnet_hpc.aggregate.published import (
    published_csv,
    published_markdown,
    published_on,
    read_published,
)
from irnet_hpc.aggregate.render import grid, latex, markdown, tidy_csv
from irnet_hpc.aggregate.tables import tabulate
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.errors import UserError
from irnet_hpc.files import write_json
from irnet_hpc.models.architectures import custom_name
from irnet_hpc.runs.grids import GRIDS
from irnet_hpc.runs.recipes import RECIPES, resolve
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import RunSpec, read_spec, run_folder, run_id, run_key

IDENTITY = {
    "source_sha256": "a" * 64,
    "features": "magpie/1",
    "filters": {},
    "split_seed": 0,
    "content_sha256": "b" * 64,
}


def write_run(
    results: Path, mae: float, model: str = "irnet-17", folder: Path | None = None, **changes
) -> Path:
    """Write the result of one cell, with a test MAE and a few fields that are not the usual ones; return its folder."""
    architecture, _, depth = model.partition("-")
    recipe = changes.pop("recipe", GRIDS.get(architecture, RECIPES["onecycle"]))
    fields = {field.name for field in dataclasses.fields(RunSpec)}
    cell = {"pack": "oqmd-magpie", "property": "formation_energy", "architecture": architecture}
    cell |= {"depth": int(depth) if depth else None}
    spec = RunSpec(
        **cell
        | {"recipe": recipe.name}
        | {name: changes.pop(name) for name in fields & changes.keys()}
    )
    identity, origin = IDENTITY | changes.pop("identity", {}), changes.pop("origin", None)
    on_test = spec.protocol == "paper"
    result = RunResult(
        spec=dataclasses.asdict(spec),
        key=run_key(spec, recipe, identity, (origin or {}).get("key")),
        recipe=dataclasses.asdict(recipe),
        unit="eV/atom",
        test_mae=mae,
        test_rmse=2 * mae,
        test_r2=0.9,
        val_mae=None if on_test else mae,
        baseline_mae=0.5,
        selected_on="test" if on_test else "val",
        optimism=0.001 if on_test else None,
        best_epoch=3,
        epochs=4,
        n_train=80,
        n_val=10,
        n_test=10,
        n_parameters=1000,
        wall_time_s=3600.0,
        device_hours=1.0,
        samples_per_s=100.0,
        peak_memory_gb=0.5,
        bundle_size=1,
        attempts=[],
        engine="none",
        device="cpu",
        precision=getattr(recipe, "precision", "fp64"),
        pack_identity=identity,
        versions={},
        commit=None,
        origin=origin,
    )
    folder = folder or run_folder(results, spec)
    write_json(folder / "run.json", {"spec": dataclasses.asdict(spec)})
    write_json(folder / "result.json", dataclasses.asdict(dataclasses.replace(result, **changes)))
    return folder


def write_by_hand(results: Path) -> None:
    """plain-17: 0.10, 0.12, 0.14 -> 0.12 ± 0.02; irnet-17: 0.08, 0.09, 0.10 -> 0.09 ± 0.01, 25 % below plain."""
    for seed in range(3):
        write_run(results, 0.10 + 0.02 * seed, "plain-17", seed=seed)
        write_run(results, 0.08 + 0.01 * seed, "irnet-17", seed=seed)
    write_run(results, 0.12, "plain-48")
    write_run(results, 0.15, "irnet-48")


def tables_of(results: Path):
    return tabulate(collect_runs(results)[0])


def aggregate(*arguments: object, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "irnet_hpc.aggregate", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, capture_output=True, text=True, env=environment, **kwargs)


def test_mean_sd_and_improvement_are_those_worked_out_by_hand(tmp_path):
    write_by_hand(tmp_path)
    (table,) = tables_of(tmp_path)
    (row,) = table.rows
    assert table.models == (("plain", 17), ("plain", 48), ("irnet", 17), ("irnet", 48))
    plain, plain_48, irnet, irnet_48 = row.cells
    assert (plain.mae, plain.sd, plain.seeds) == (
        pytest.approx(0.12),
        pytest.approx(0.02),
        (0, 1, 2),
    )
    assert (irnet.mae, irnet.sd, irnet.improvement) == tuple(map(pytest.approx, (0.09, 0.01, 25.0)))
    assert (plain_48.sd, irnet_48.sd, irnet_48.improvement) == (None, None, pytest.approx(-25.0))
    assert [cell.best for cell in row.cells] == [False, False, True, False]
    assert (row.baseline, row.unit, irnet.device_hours) == (0.5, "eV/atom", 3.0)


def test_improvement_is_over_the_seeds_that_both_have(tmp_path):
    for seed, mae in ((0, 0.30), (1, 0.10), (2, 0.20)):  # over seeds 1 and 2: 0.15
        write_run(tmp_path, mae, "plain-17", seed=seed)
    for seed, mae in ((1, 0.08), (2, 0.16), (3, 0.90)):  # over seeds 1 and 2: 0.12, a fifth less
        write_run(tmp_path, mae, "irnet-17", seed=seed)
    write_run(tmp_path, 0.1, "plain-48", seed=0)
    write_run(tmp_path, 0.1, "irnet-48", seed=1)
    (table,) = tables_of(tmp_path)
    plain, _, irnet, irnet_48 = table.rows[0].cells
    assert (plain.mae, irnet.mae) == (
        pytest.approx(0.2),
        pytest.approx(0.38),
    )  # each over all of its own
    assert (plain.improvement, irnet.improvement, irnet_48.improvement) == (
        None,
        pytest.approx(20.0),
        None,
    )
    assert [text for text, _ in grid(table)[1][-2:]] == ["+20.0 %", "no common seed"]


def test_markdown_is_aligned_rounded_by_the_sd_and_has_the_best_in_bold(tmp_path):
    write_by_hand(tmp_path)
    (table,) = tables_of(tmp_path)
    assert table.title == "oqmd-magpie, recipe onecycle, protocol honest"
    assert markdown(table) == "\n".join(
        [
            "| property                   | baseline |            plain-17 |    plain-48 |                irnet-17 |    irnet-48 | irnet vs plain, 17 | irnet vs plain, 48 |",
            "|----------------------------|---------:|--------------------:|------------:|------------------------:|------------:|-------------------:|-------------------:|",
            "| formation_energy (eV/atom) |    0.500 | 0.120 ± 0.020 (n=3) | 0.120 (n=1) | **0.090 ± 0.010 (n=3)** | 0.150 (n=1) |            +25.0 % |            -25.0 % |",
        ]
    )


def test_markdown_wider_than_the_terminal_continues_below_with_the_property_repeated(tmp_path):
    write_by_hand(tmp_path)
    (table,) = tables_of(tmp_path)
    wrapped = markdown(table, width=90)
    assert all(len(line) <= 90 for line in wrapped.splitlines())
    headers = [line.split("|")[1:-1] for line in wrapped.splitlines() if "property" in line]
    assert [name.strip() for header in headers for name in header[1:]] == [
        text for text, _ in grid(table)[0][1:]
    ]


@pytest.mark.parametrize(
    ("maes", "texts"),
    [
        ([0.046312], ["0.04631 (n=1)"]),  # four digits where there is no sd
        ([512.0, 602.0], ["557 ± 64 (n=2)"]),  # sd 63.6: no place behind the point
        ([0.1, 0.1], ["0.1000 ± 0.0000 (n=2)"]),
        ([1.0, 1.0 + 1e-12], ["1.0000 ± 0.0000 (n=2)"]),  # never more than five digits
        ([2e-6], ["2.000e-06 (n=1)"]),
    ],
)
def test_digits_follow_the_sd_or_are_four(tmp_path, maes, texts):
    for seed, mae in enumerate(maes):
        write_run(tmp_path, mae, seed=seed, baseline_mae=1000.0)
    (table,) = tables_of(tmp_path)
    assert [text for text, _ in grid(table)[1][2:]] == texts


def test_a_baseline_that_no_model_beats_is_the_best_of_its_row(tmp_path):
    write_run(tmp_path, 0.2, property="band_gap", unit="eV", baseline_mae=0.148)
    (table,) = tables_of(tmp_path)
    assert "| **0.1480** |" in markdown(table)
    assert not table.rows[0].cells[0].best


def test_columns_are_plain_srnet_irnet_custom_by_depth_and_rows_are_in_the_order_of_properties(
    tmp_path,
):
    layers = "64BARx2-1"
    custom = custom_name(layers)
    for model in ("irnet-48", "irnet-10", "srnet-17", "plain-24"):
        write_run(tmp_path, 0.1, model)
    write_run(tmp_path, 0.1, architecture=custom, depth=3, layers=layers)
    write_run(tmp_path, 0.1, property="band_gap", unit="eV")
    runs, _ = collect_runs(tmp_path)
    (table,) = tabulate(runs)
    assert [f"{architecture}-{depth}" for architecture, depth in table.models] == [
        *("plain-24", "srnet-17", "irnet-10", "irnet-17", "irnet-48", f"{custom}-3")
    ]
    assert [row.property for row in table.rows] == ["formation_energy", "band_gap"]
    assert "not run" in markdown(table)  # band_gap has no plain-24
    assert table.compared_depths == ()
    (note,) = legend(runs, [table])
    assert note.lines == (f"{custom}-3: 64BARx2-1",)


def test_what_is_selected_on_test_has_its_own_table_and_says_so_wherever_it_appears(tmp_path):
    write_run(tmp_path, 0.10)
    write_run(tmp_path, 0.08, protocol="paper", recipe=RECIPES["paper"])
    honest, paper = tables_of(tmp_path)
    assert "selected on test" not in honest.title
    assert paper.title == "oqmd-magpie, recipe paper, protocol paper (selected on test)"
    assert paper.title in document([honest, paper], [])
    assert "(selected on test)" in latex(paper)
    assert [line.split(",")[7] for line in tidy_csv([honest, paper]).splitlines()] == [
        "selected_on",
        "val",
        "test",
    ]
    assert paper.title in [text.get_text() for text in mae_against_depth(paper).texts]


def test_fewer_training_rows_and_another_start_are_tables_of_their_own(tmp_path):
    pretrained = [write_run(tmp_path, 0.05, seed=seed) for seed in (0, 1)]
    specs = [
        read_spec(json.loads((folder / "result.json").read_text())["spec"]) for folder in pretrained
    ]
    for seed, spec in enumerate(specs):
        write_run(
            tmp_path,
            0.03,
            pack="jarvis-magpie",
            seed=seed,
            start_from=run_id(spec, RECIPES["onecycle"]),
        )
    write_run(tmp_path, 0.07, pack="jarvis-magpie")
    write_run(tmp_path, 0.09, pack="jarvis-magpie", train_rows=1000, n_train=1000)
    write_run(tmp_path, 0.06, pack="jarvis-magpie", start_from="0123456789abcdef")
    titles = [table.title for table in tables_of(tmp_path)]
    jarvis = "jarvis-magpie, recipe onecycle, protocol honest"
    assert titles == [
        jarvis,
        f"{jarvis}, started from oqmd-magpie",
        f"{jarvis}, started from run 01234567",
        f"{jarvis}, first 1,000 training rows",
        "oqmd-magpie, recipe onecycle, protocol honest",
    ]
    assert tables_of(tmp_path)[1].rows[0].cells[0].seeds == (0, 1)
    assert len({table.name for table in tables_of(tmp_path)}) == 5


def test_a_start_is_called_the_same_for_every_seed_and_split_whether_or_not_the_origin_is_there(
    tmp_path,
):
    """Two splits of two seeds: of the four origins only one is among the results, and the others are as the runs say."""
    for split in ("", "-split1"):
        for seed in (0, 1):
            origin = RunSpec(
                f"oqmd-magpie{split}", "formation_energy", "irnet", 17, seed=seed, train_rows=500
            )
            if split and seed:
                write_run(tmp_path, 0.05, pack=origin.pack, seed=seed, train_rows=500)
            said = {
                "pack": origin.pack,
                "property": "formation_energy",
                "model": "irnet-17",
                "recipe": "onecycle",
            }
            said |= {
                "folder": "elsewhere",
                "key": "k",
                "protocol": "honest",
                "train_rows": 500,
                "n_shared_test": 0,
            }
            name, start_from = f"jarvis-magpie{split}", run_id(origin, RECIPES["onecycle"])
            write_run(
                tmp_path,
                0.03,
                pack=name,
                seed=seed,
                property="band_gap",
                start_from=start_from,
                origin=said,
            )
    started = [table for table in tables_of(tmp_path) if table.start_from]
    assert {table.start_from for table in started} == {"oqmd-magpie formation_energy n500"}
    assert [(table.pack, table.rows[0].cells[0].seeds) for table in started] == [
        ("jarvis-magpie", (0, 1)),
        ("jarvis-magpie-split1", (0, 1)),
    ]
    assert not [table for table in tables_of(tmp_path) if "stale" in table.recipe]


def test_what_started_from_other_content_than_it_says_is_stale(tmp_path):
    said = {
        "pack": "oqmd-magpie",
        "property": "band_gap",
        "model": "irnet-17",
        "recipe": "onecycle",
        "key": "k",
    }
    folder = write_run(tmp_path, 0.03, start_from="0123456789abcdef", origin=said)
    broken = write_run(tmp_path, 0.03, start_from="fedcba9876543210", origin=said)
    value = json.loads((broken / "result.json").read_text()) | {"origin": 5}
    (broken / "result.json").write_text(json.dumps(value))
    _, gaps = collect_runs(tmp_path)
    assert "origin must be of type dict, or null" in gaps[broken].why
    (table,) = tables_of(tmp_path)
    assert (table.recipe, table.start_from) == ("onecycle", "band_gap")
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"origin": said | {"key": "another"}}))
    (table,) = tables_of(tmp_path)
    assert table.recipe == "onecycle (stale)"


def test_a_start_that_has_seen_test_formulas_says_so_and_shares_no_table_with_one_that_has_not(
    tmp_path,
):
    """Pack oqmd-magpie-split1 started from one of split 0, which would else be called `itself`."""
    said = {
        "pack": "oqmd-magpie",
        "property": "formation_energy",
        "model": "irnet-17",
        "recipe": "onecycle",
        "key": "k",
    }
    write_run(tmp_path, 0.04, start_from="0" * 16, origin=said | {"n_shared_test": 0})
    write_run(tmp_path, 0.03, seed=1, start_from="1" * 16, origin=said | {"n_shared_test": 7})
    folder = write_run(
        tmp_path, 0.05, seed=2, start_from="2" * 16, origin=said | {"n_shared_test": None}
    )
    clean, seen = tables_of(tmp_path)
    assert (clean.start_from, seen.start_from) == (
        "itself",
        "itself (which has seen test formulas)",
    )
    assert (clean.rows[0].cells[0].seeds, seen.rows[0].cells[0].seeds) == ((0, 2), (1,))
    assert "(which has seen test formulas)" in seen.title and "seen-test" in seen.name
    (note,) = legend(collect_runs(tmp_path)[0], [clean, seen])
    assert (
        note.lines == (str(folder),)
        and "not known whether it has seen test formulas" in note.heading
    )


def test_a_run_whose_origin_has_since_been_trained_otherwise_is_named_in_the_notes(tmp_path):
    origin = RunSpec("oqmd-magpie", "formation_energy", "irnet", 17)
    write_run(tmp_path, 0.05)
    (trained,) = collect_runs(tmp_path)[0]
    said = {
        "pack": "oqmd-magpie",
        "property": "formation_energy",
        "model": "irnet-17",
        "n_shared_test": 0,
    }
    start = {"pack": "jarvis-magpie", "start_from": run_id(origin, RECIPES["onecycle"])}
    write_run(tmp_path, 0.04, **start, origin=said | {"key": trained.result.key})
    folder = write_run(
        tmp_path, 0.04, seed=1, **start, origin=said | {"key": "of another recipe of this name"}
    )
    (note,) = legend(collect_runs(tmp_path)[0], tables_of(tmp_path))
    assert note == Note("started from a run that has since been trained otherwise", (str(folder),))


def test_a_start_of_many_words_leaves_the_names_of_files_short(tmp_path):
    """250 letters of properties: a folder's name holds them, a figure's has the pack and more beside them."""
    several = ",".join(f"property_{number:02}" for number in range(20))
    said = {
        "pack": "oqmd-magpie",
        "property": several,
        "model": "irnet-17",
        "recipe": "onecycle",
        "key": "k",
    }
    write_run(tmp_path, 0.04, start_from="0" * 16, origin=said | {"n_shared_test": 0})
    write_run(
        tmp_path,
        0.04,
        "irnet-10",
        start_from="1" * 16,
        origin=said | {"model": "irnet-10", "n_shared_test": 0},
    )
    (table,) = tables_of(tmp_path)
    assert several in table.title and re.fullmatch(
        "oqmd-magpie_onecycle_honest_start-[0-9a-f]{6}", table.name
    )
    assert aggregate(tmp_path).returncode == 0


def test_two_starts_that_would_be_called_alike_are_refused_naming_both_folders(tmp_path):
    said = {
        "pack": "oqmd-magpie",
        "property": "band_gap",
        "model": "irnet-17",
        "recipe": "mine",
        "key": "k",
    }
    first, second = (write_run(tmp_path, 0.03, start_from=16 * one, origin=said) for one in "ab")
    with pytest.raises(UserError, match="both of which are called 'band_gap mine'") as error:
        tables_of(tmp_path)
    assert str(first) in str(error.value) and str(second) in str(error.value)


def test_two_packs_of_one_name_are_refused_naming_both_folders(tmp_path):
    first = write_run(tmp_path, 0.1, "irnet-17")
    second = write_run(tmp_path, 0.1, "irnet-48", identity={"source_sha256": "c" * 64})
    with pytest.raises(UserError, match="two packs named 'oqmd-magpie'") as error:
        tables_of(tmp_path)
    assert str(first) in str(error.value)
    assert str(second) in str(error.value)
    assert "source_sha256" in str(error.value)


def test_a_pack_whose_features_differ_in_the_last_bit_is_the_same_pack(tmp_path):
    write_run(tmp_path, 0.1, "irnet-17")
    write_run(tmp_path, 0.1, "irnet-48", identity={"content_sha256": "c" * 64})
    assert len(tables_of(tmp_path)) == 1


def test_recipes_of_one_name_and_different_content_are_not_mixed(tmp_path):
    small, large = (
        resolve({"name": "mine", "base": "paper", "batch": batch}) for batch in (64, 128)
    )
    write_run(tmp_path, 0.10, recipe=small, seed=0)
    write_run(tmp_path, 0.20, recipe=large, seed=1)
    runs, _ = collect_runs(tmp_path)
    tables = tabulate(runs)
    assert sorted(table.rows[0].cells[0].mae for table in tables) == [0.10, 0.20]
    assert len({table.recipe for table in tables}) == 2
    (note,) = legend(runs, tables)
    assert {line.partition(": ")[2] for line in note.lines} == {"batch 64", "batch 128"}
    assert {line.partition(": ")[0] for line in note.lines} == {table.recipe for table in tables}


@pytest.mark.parametrize("how", ["another trainer", "another recipe"])
def test_what_would_now_be_trained_otherwise_is_stale_and_not_mixed_with_the_rest(tmp_path, how):
    write_run(tmp_path, 0.10, seed=0)
    if how == "another trainer":
        write_run(tmp_path, 0.20, seed=1, key="f" * 64)
    else:
        write_run(tmp_path, 0.20, seed=1, recipe=dataclasses.replace(RECIPES["onecycle"], epochs=7))
    runs, _ = collect_runs(tmp_path)
    current, stale = sorted(tabulate(runs), key=lambda table: table.recipe.endswith("(stale)"))
    assert current.rows[0].cells[0].mae == 0.10
    assert stale.recipe.endswith("(stale)")
    assert any("stale" in note.heading for note in legend(runs, [current, stale]))


def test_a_copied_run_counts_once_and_one_that_differs_is_refused(tmp_path):
    write_run(tmp_path, 0.1)
    copy = write_run(tmp_path, 0.1, folder=tmp_path / "backup" / "some run")
    (table,) = tables_of(tmp_path)
    assert table.rows[0].cells[0].seeds == (0,)
    write_run(tmp_path, 0.2, folder=copy)
    with pytest.raises(UserError, match="the same cell with different numbers"):
        tables_of(tmp_path)


@pytest.mark.parametrize("change", [{"n_test": 11}, {"unit": "meV/atom"}, {"baseline_mae": 0.6}])
def test_cells_of_one_row_are_measured_on_the_same_rows(tmp_path, change):
    write_run(tmp_path, 0.1, "irnet-17")
    write_run(tmp_path, 0.1, "irnet-48", **change)
    with pytest.raises(UserError, match=f"their {next(iter(change))} differs"):
        tables_of(tmp_path)


def test_the_footer_says_what_is_missing_and_why(tmp_path):
    write_run(tmp_path, 0.1, seed=0)
    running, failed, cut, short, absurd = (
        write_run(tmp_path, 0.1, seed=seed) for seed in range(1, 6)
    )
    for folder in (running, failed):
        (folder / "result.json").unlink()
    write_json(
        failed / "error.json", {"error": "the loss is not finite at epoch 3,\nstep 17\x1b[31m"}
    )
    (cut / "result.json").write_text((cut / "result.json").read_text()[:100])
    for folder, change in (
        (short, lambda value: value.pop("unit")),
        (absurd, lambda value: value.update(test_mae=-1)),
    ):
        value = json.loads((folder / "result.json").read_text())
        change(value)
        (folder / "result.json").write_text(json.dumps(value))
    hidden = write_run(tmp_path, 0.9, seed=9, folder=tmp_path / ".trash" / "run")
    runs, gaps = collect_runs(tmp_path)
    notes = footer(gaps)
    assert [run.spec.seed for run in runs] == [0]
    failures, unfinished, unreadable = notes
    assert failures == Note(
        "failed", (f"{failed}: the loss is not finite at epoch 3, step 17 [31m",)
    )
    assert unfinished == Note("running, or interrupted", (str(running),))
    assert "is not JSON" in unreadable.lines[0]
    assert "keys missing or unknown: unit" in unreadable.lines[1]
    assert "test_mae must be a number that is not negative, got -1" in unreadable.lines[2]
    text = document(tabulate(runs), notes)
    assert "failed (1):" in text
    assert "running, or interrupted (1):" in text
    assert "unreadable, and left out (3):" in text
    assert str(hidden) not in text
    assert "- and 2 more, all in mae.md" in document(tabulate(runs), notes, most=1)


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
    assert [table.rows[0].cells[0].seeds for table in tabulate(runs)] == [(0,)]
    (note,) = footer(gaps)
    ((name, value),) = change.items()
    assert note.heading == "unreadable, and left out"
    assert re.search(
        rf"{wrong}/result.json: {name} must be of type .*, however: {value}$", note.lines[0]
    )


def test_folders_behind_a_link_are_read_and_a_circle_of_links_ends(tmp_path):
    write_run(tmp_path / "scratch", 0.1)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "link").symlink_to(tmp_path / "scratch")
    (tmp_path / "scratch" / "circle").symlink_to(tmp_path / "results")
    assert len(collect_runs(tmp_path / "results")[0]) == 1


def test_with_a_matrix_every_cell_without_a_result_says_why(tmp_path):
    results = tmp_path / "results"
    write_run(results, 0.1, "irnet-17")
    failed, by_hand = write_run(results, 0.1, "plain-17"), write_run(results, 0.1, "plain-48")
    for folder in (failed, by_hand):
        (folder / "result.json").unlink()
    write_json(failed / "error.json", {"error": "out of memory"})
    stale = write_run(results, 0.1, "irnet-24", key="f" * 64)
    matrix = tmp_path / "m.yaml"
    matrix.write_text(
        "packs: [oqmd-magpie]\nproperties: [formation_energy]\n"
        "models: [{architectures: [plain, irnet], depths: [17, 48]}, irnet-24]\n"
    )
    _, gaps = collect_runs(results)
    notes = ask_ledger(matrix, results, gaps)
    assert notes[0] == Note(f"{matrix}: 1 of 5 cells are done")
    absent = run_folder(results, RunSpec("oqmd-magpie", "formation_energy", "irnet", 48))
    assert {folder: gap.state for folder, gap in gaps.items()} == {
        failed: "failed",
        by_hand: "running, or interrupted",
        absent: "not run",
        stale: "stale",
    }
    assert gaps[failed].why == "out of memory"
    text = document([], [*notes, *footer(gaps)])
    assert f"not run (1):\n\n- {absent}\n" in text
    assert f"{matrix}: 1 of 5 cells are done.\n" in text


def test_the_tidy_csv_has_full_precision_and_reads_back(tmp_path):
    write_by_hand(tmp_path)
    (tmp_path / "tidy.csv").write_text(tidy_csv(tables_of(tmp_path)))
    frame = pd.read_csv(tmp_path / "tidy.csv", float_precision="round_trip").set_index("model")
    assert list(frame.index) == ["plain-17", "plain-48", "irnet-17", "irnet-48"]
    (table,) = tables_of(tmp_path)
    assert frame.loc["irnet-17", "test_mae_mean"] == table.rows[0].cells[2].mae  # bit for bit
    assert frame.loc["irnet-17", "test_mae_sd"] == table.rows[0].cells[2].sd
    assert frame.loc["irnet-48", "improvement_over_plain"] == pytest.approx(-25.0)
    assert pd.isna(frame.loc["plain-17", "improvement_over_plain"])
    assert pd.isna(frame.loc["plain-48", "test_mae_sd"])
    assert frame.loc["plain-17", "seeds"] == "0 1 2"
    assert set(frame["unit"]) == {"eV/atom"}
    assert set(frame["n_train"]) == {80}
    assert set(frame["baseline_mae"]) == {0.5}


@pytest.mark.parametrize("unit", ["=1+1", "+x", "-", "@SUM(A1)"])
def test_a_spreadsheet_takes_no_text_of_the_csv_for_a_formula(tmp_path, unit):
    write_run(tmp_path, 0.1, property="mine", unit=unit)
    (tmp_path / "tidy.csv").write_text(tidy_csv(tables_of(tmp_path)))
    assert pd.read_csv(tmp_path / "tidy.csv").loc[0, "unit"] == "'" + unit


def test_names_of_the_user_are_escaped(tmp_path):
    assert escape_latex(r"50% of_x & $y$ #1 {z} ~^\ Å³/µ ±") == (
        r"50\% of\_x \& \$y\$ \#1 \{z\} \textasciitilde{}\textasciicircum{}\textbackslash{} \AA{}$^3$/$\mu$ $\pm$"
    )
    write_run(tmp_path, 0.1, property="mine", unit="a|b\n*c*<i>")
    (table,) = tables_of(tmp_path)
    assert r"mine (a\|b \*c\*\<i\>)" in markdown(table)
    assert len(markdown(table).splitlines()) == 3


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_compiles(tmp_path):
    write_by_hand(tmp_path)
    write_run(tmp_path, 0.1, property="mine_1.x+y=z", unit=r"50% & $_{#}~^\<|> Å³ µB·°")
    body = "\n".join(map(latex, tables_of(tmp_path)))
    assert (
        body.count(r"\toprule") == body.count(r"\bottomrule") == 3
    )  # eight columns do not fit side by side
    document_text = (
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        + body
        + "\n\\end{document}\n"
    )
    (tmp_path / "paper.tex").write_text(document_text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").exists()


def test_the_figure_draws_a_line_an_architecture_against_depth(tmp_path):
    write_by_hand(tmp_path)
    write_run(tmp_path, 0.2, property="band_gap", unit="eV", baseline_mae=0.25)
    (table,) = tables_of(tmp_path)
    energy, gap = mae_against_depth(table).axes
    lines = {container.get_label(): container.lines[0] for container in energy.containers}
    assert list(lines) == ["plain", "IRNet"]
    assert lines["IRNet"].get_xdata().tolist() == [17, 48]
    assert lines["IRNet"].get_ydata().tolist() == pytest.approx([0.09, 0.15])
    assert energy.get_xticks().tolist() == [17, 48]
    assert energy.get_ylabel() == r"MAE of $E_{\mathrm{f}}$ (eV/atom)"
    assert (
        energy.get_title(loc="right") == "baseline 0.5 ↑"
    )  # three times the largest MAE: written, not drawn
    assert 0.25 in [line.get_ydata()[0] for line in gap.lines]


def test_the_command_writes_the_same_tables_that_it_shows(tmp_path):
    write_by_hand(tmp_path / "results")
    done = aggregate(cwd=tmp_path)  # with nothing: results
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    figure = "mae_vs_depth-oqmd-magpie_onecycle_honest"
    assert {path.name for path in folder.iterdir()} == {
        *("mae.md", "mae.csv", "mae.json", "mae.tex", f"{figure}.png", f"{figure}.pdf")
    }
    assert (folder / "mae.md").read_text() in done.stdout
    assert "**0.090 ± 0.010 (n=3)**" in done.stdout
    assert (folder / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert aggregate("results/", cwd=tmp_path).returncode == 0
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    elsewhere = aggregate("results/", "--tables", "paper", cwd=tmp_path)
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert (tmp_path / "paper" / "mae.csv").read_bytes() == (folder / "mae.csv").read_bytes()


def test_nothing_to_show_is_one_sentence_and_status_2(tmp_path):
    (tmp_path / "empty").mkdir()
    failed = write_run(tmp_path / "failed", 0.1)
    (failed / "result.json").unlink()
    write_json(failed / "error.json", {"error": "out of memory"})
    two = tmp_path / "two"
    write_run(two, 0.1, "irnet-17")
    write_run(two, 0.1, "irnet-48", identity={"split_seed": 1})
    for results, sentence in (
        (tmp_path / "absent", "is not a folder"),
        (tmp_path / "empty", "it holds no run folder"),
        (tmp_path / "failed", "1 failed (e.g. .*: out of memory)"),
        (two, "two packs named 'oqmd-magpie' of different content (split_seed)"),
    ):
        done = aggregate(results)
        assert done.returncode == 2
        assert re.fullmatch(r"error: [^\n]+\n", done.stderr)
        assert re.search(sentence.replace("(", r"\(").replace(")", r"\)"), done.stderr), done.stderr
        assert done.stdout == ""
        assert not (results / "tables").exists()


def test_tables_need_neither_torch_nor_hdf5_nor_mpi_nor_matplotlib(tmp_path):
    write_run(tmp_path / "results", 0.1)
    code = (
        "import sys; sys.argv = ['aggregate', 'results']; from irnet_hpc.aggregate.cli import main; main();"
        "print(sorted({'torch', 'h5py', 'mpi4py', 'horovod', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"  # one depth has no figure, and so no matplotlib


def write_classical(results: Path, **changes) -> None:
    """By val the forest is the best (0.10 against 0.11 and 0.30), by test ridge (0.06); the forest's test MAE is 0.12."""
    for seed in range(2):
        write_run(
            results,
            0.11 + 0.02 * seed,
            "random_forest",
            seed=seed,
            val_mae=0.09 + 0.02 * seed,
            **changes,
        )
    write_run(results, 0.06, "ridge", val_mae=0.11, **changes)
    write_run(results, 0.07, "linear", val_mae=0.30, **changes)


def test_best_classical_is_chosen_by_val_and_never_by_test(tmp_path):
    write_by_hand(tmp_path)
    write_classical(tmp_path)
    ours, theirs = sorted(tables_of(tmp_path), key=lambda table: table.recipe == "grid")
    (row,) = ours.rows
    best = row.best_classical
    assert (best.model, best.mae, best.seeds, best.best) == (
        "random_forest",
        pytest.approx(0.12),
        (0, 1),
        False,
    )
    assert best.sd == pytest.approx(0.02 / 2**0.5)
    assert [cell.improvement_over_classical for cell in row.cells] == pytest.approx(
        [0.0, 0.0, 25.0, -25.0]
    )
    header, line = ([text for text, _ in one] for one in grid(ours))
    named = dict(zip(header, line, strict=True))
    assert header[:3] == ["property", "baseline", "best classical"]
    assert named["best classical"] == "random_forest 0.120 ± 0.014 (n=2)"
    assert (named["irnet vs classical, 17"], named["irnet vs classical, 48"]) == (
        "+25.0 %",
        "-25.0 %",
    )
    # their own table: a column a model, in the order of GRIDS, and no column of the best
    assert theirs.title == "oqmd-magpie, recipe grid, protocol honest"
    assert [text for text, _ in grid(theirs)[0]] == [
        "property",
        "baseline",
        "linear",
        "ridge",
        "random_forest",
    ]
    assert theirs.rows[0].best_classical is None
    assert [cell.best for cell in theirs.rows[0].cells] == [False, True, False]


def test_a_network_that_loses_to_the_best_classical_model_is_not_the_best_of_its_row(tmp_path):
    write_run(tmp_path, 0.09)
    write_run(tmp_path, 0.08, "svr")
    table = next(table for table in tables_of(tmp_path) if table.recipe != "grid")
    assert (table.rows[0].cells[0].best, table.rows[0].best_classical.best) == (False, True)
    assert "| **svr 0.08000 (n=1)** |" in markdown(table)


def test_best_classical_is_of_the_same_pack_property_rows_and_protocol(tmp_path):
    write_run(tmp_path, 0.1)
    write_run(tmp_path, 0.2, property="band_gap", unit="eV", baseline_mae=0.4)
    write_run(tmp_path, 0.1, train_rows=50, n_train=50)
    write_run(tmp_path, 0.1, pack="mp-magpie")
    write_run(tmp_path, 0.05, "ridge")
    tables = {
        table.title.partition(", ")[0] + str(table.train_rows): table
        for table in tables_of(tmp_path)
        if table.recipe != "grid"
    }
    energy, gap = tables["oqmd-magpieNone"].rows
    assert (energy.best_classical.model, gap.best_classical) == ("ridge", None)
    assert not tables["oqmd-magpie50"].has_classical and not tables["mp-magpieNone"].has_classical


def test_under_protocol_paper_the_best_classical_model_is_still_chosen_by_val(tmp_path):
    """The forest by the val of its honest cell; what is shown of it is its number under the table's own protocol."""
    paper = {"protocol": "paper", "n_train": 90, "n_val": 0}
    write_run(tmp_path, 0.08, recipe=RECIPES["paper"], **paper)
    for model, mae in (("ridge", 0.05), ("random_forest", 0.07)):
        write_run(tmp_path, mae, model, **paper)
    table = next(table for table in tables_of(tmp_path) if table.recipe == "paper")
    assert not table.has_classical  # by test alone, nothing is chosen
    write_classical(tmp_path)
    table = next(table for table in tables_of(tmp_path) if table.recipe == "paper")
    assert (table.rows[0].best_classical.model, table.rows[0].best_classical.mae) == (
        "random_forest",
        0.07,
    )


def test_a_stale_classical_result_is_not_compared_with(tmp_path):
    write_run(tmp_path, 0.1)
    write_run(
        tmp_path, 0.05, "ridge", recipe=dataclasses.replace(GRIDS["ridge"], grid={"alpha": [3.0]})
    )
    tables = {table.recipe: table for table in tables_of(tmp_path)}
    assert set(tables) == {"onecycle", "grid (stale)"}
    assert not tables["onecycle"].has_classical


def test_without_classical_results_nothing_mentions_them(tmp_path):
    write_by_hand(tmp_path)
    tables = tables_of(tmp_path)
    assert "classical" not in document(tables, []) + tidy_csv(tables) + latex(tables[0])


def test_the_csv_has_the_best_classical_model_and_the_improvement_over_it(tmp_path):
    write_by_hand(tmp_path)
    write_classical(tmp_path)
    (tmp_path / "tidy.csv").write_text(tidy_csv(tables_of(tmp_path)))
    frame = pd.read_csv(tmp_path / "tidy.csv").set_index("model")
    assert frame.loc["irnet-17", "best_classical"] == "random_forest"
    assert frame.loc["irnet-17", "best_classical_mae"] == pytest.approx(0.12)
    assert frame.loc["irnet-17", "improvement_over_classical"] == pytest.approx(25.0)
    assert (
        frame.loc["random_forest", ["depth", "n_parameters", "best_classical"]].isna().sum() == 2
    )  # 1000 in write_run
    assert frame.loc["ridge", "test_mae_mean"] == 0.06


def test_a_classical_model_fitted_on_fewer_rows_is_named_below_the_tables(tmp_path):
    write_run(tmp_path, 0.1, "svr", fitted_rows=20, n_parameters=None)
    write_run(tmp_path, 0.1, "ridge", fitted_rows=80)
    runs, gaps = collect_runs(tmp_path)
    assert not gaps
    (note,) = legend(runs, tabulate(runs))
    assert note.heading.startswith("fitted on fewer rows")
    assert note.lines == ("svr on oqmd-magpie, formation_energy: the first 20 of 80 training rows",)


def test_a_result_from_before_these_models_is_still_read(tmp_path):
    folder = write_run(tmp_path, 0.1)
    value = json.loads((folder / "result.json").read_text())
    for name in ("chosen", "fitted_rows"):
        del value[name]
    write_json(folder / "result.json", value)
    runs, gaps = collect_runs(tmp_path)
    assert (len(runs), gaps, runs[0].result.chosen) == (1, {}, None)


def test_published_numbers_are_those_of_the_file():
    lines = read_published()
    assert len(lines) > 80 and all(line.mae > 0 and line.source and line.split for line in lines)
    irnet = [
        line
        for line in lines
        if (line.dataset, line.property, *line.ours) == ("oqmd", "formation_energy", "irnet", 48)
    ]
    assert [(line.mae, line.n_rows, line.unit) for line in irnet] == [(0.048, 341443, "eV/atom")]
    assert {line.n_rows for line in lines if line.model == "brnet"} == {None}
    forests = [line for line in lines if line.model == "random-forest"]
    assert forests and all(line.ours == ("random_forest", None) for line in forests)
    known = {name: one.unit for name, one in PROPERTIES.items()}
    assert {(line.property, line.unit) for line in lines} <= set(known.items())
    assert not published_on("oqmd", [("formation_energy", "eV")])  # another unit is another number


def test_published_numbers_stand_below_the_table_beside_ours_and_not_in_it(tmp_path):
    write_run(tmp_path, 0.05, "irnet-17", identity={"source": "oqmd"}, n_train=121046)
    write_run(tmp_path, 0.09, "random_forest", identity={"source": "oqmd"}, n_train=121046)
    tables = tables_of(tmp_path)
    ours, theirs = (
        next(table for table in tables if (table.recipe == "grid") == classical)
        for classical in (False, True)
    )
    text = published_markdown(ours)
    lines = {
        tuple(cell.strip() for cell in line.split("|")[2:-1])
        for line in text.splitlines()
        if line.startswith("| form")
    }
    selected = "90:10, selected on the reported set"
    assert (
        "irnet-17",
        "magpie",
        "0.054",
        "341,443",
        selected,
        "0.05000 (n=1)",
        "121,046",
        "1",
    ) in lines
    assert ("irnet-48", "magpie", "0.048", "341,443", selected, "not run", "121,046", "1") in lines
    best = "random_forest 0.09000 (n=1)"
    assert (
        "best of 10 classical",
        "magpie",
        "0.077",
        "341,443",
        selected,
        best,
        "121,046",
        "1",
    ) in lines
    assert "\n1. IRNet, KDD 2019" in text and "band_gap" not in text
    assert "random-forest | " in published_markdown(theirs) and "0.083408" in published_markdown(
        theirs
    )
    assert "0.054" not in markdown(ours) and "0.054" not in tidy_csv(tables)
    whole = document(tables, [])
    assert whole.index(markdown(ours)) < whole.index(text)
    (tmp_path / "published.csv").write_text(published_csv(tables))
    frame = pd.read_csv(tmp_path / "published.csv")
    frame = frame[frame["recipe"] == "onecycle"].set_index("published_model")
    assert (
        frame.loc["irnet-17", "published_mae"] == 0.054
        and frame.loc["irnet-17", "our_test_mae_mean"] == 0.05
    )
    assert frame.loc["irnet-17", "our_model"] == "irnet-17" and pd.isna(
        frame.loc["irnet-48", "our_model"]
    )
    assert frame.loc["best of 10 classical", "our_model"] == "random_forest"


@pytest.mark.parametrize(
    "changes",
    [
        {"train_rows": 100},
        {
            "identity": {
                "source": "oqmd",
                "split": {"by": "family", "family": "halogens", "seed": 0},
            }
        },
    ],
)
def test_nothing_published_stands_beside_the_first_rows_or_chemistry_that_was_held_out(
    tmp_path, changes
):
    write_run(tmp_path, 0.05, "irnet-17", **{"identity": {"source": "oqmd"}} | changes)
    tables = tables_of(tmp_path)
    assert published_markdown(tables[0]) == published_csv(tables) == ""


@pytest.mark.parametrize("identity", [{}, {"source": "alloys"}, {"source": "my_oqmd"}])
def test_nothing_published_is_shown_for_another_dataset(tmp_path, identity):
    write_run(tmp_path, 0.05, identity=identity)
    tables = tables_of(tmp_path)
    assert published_markdown(tables[0]) == published_csv(tables) == ""
    assert "Published" not in document(tables, [])


def test_the_command_writes_the_published_numbers_as_a_csv_of_their_own(tmp_path):
    write_run(tmp_path / "results", 0.05, identity={"source": "oqmd"})
    done = aggregate(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    assert {path.name for path in folder.iterdir()} == {
        "mae.md",
        "mae.csv",
        "mae.json",
        "mae.tex",
        "published.csv",
    }
    assert (
        "Published on oqmd" in done.stdout
        and "Published on oqmd" in (folder / "mae.md").read_text()
    )
