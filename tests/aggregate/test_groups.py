"""Groups of runs: packs, splits, recipes and starts that share a table."""

import dataclasses
import json
import re

import pytest

from irnet_hpc.aggregate.document import document
from irnet_hpc.aggregate.notes import legend
from irnet_hpc.aggregate.tables import tabulate
from irnet_hpc.errors import UserError
from irnet_hpc.runs.collect import collect_runs
from irnet_hpc.runs.recipes import RECIPES, resolve
from irnet_hpc.runs.spec import RunSpec, run_id
from tests.aggregate.results import aggregate, findings_of, tables_of, write_run, write_split


def test_a_start_is_called_the_same_for_every_seed_and_split(
    tmp_path,
):
    """Two splits of two seeds: one of the four origins is among the results."""
    for split in ("", "-split1"):
        for seed in (0, 1):
            origin = RunSpec(
                f"oqmd-magpie{split}", "formation_energy", "irnet", 17, seed=seed, train_rows=500
            )
            if split and seed:
                write_run(tmp_path, 0.05, pack=origin.pack, seed=seed, train_rows=500)
            stated = {
                "pack": origin.pack,
                "property": "formation_energy",
                "model": "irnet-17",
                "recipe": "onecycle",
            }
            stated |= {
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
                origin=stated,
            )
    started = [table for table in tables_of(tmp_path) if table.start_from]
    assert {table.start_from for table in started} == {"oqmd-magpie formation_energy n500"}
    assert [(table.pack, table.rows[0].scores[0].seeds) for table in started] == [
        ("jarvis-magpie", (0, 1)),
        ("jarvis-magpie-split1", (0, 1)),
    ]
    assert not [table for table in tables_of(tmp_path) if table.stale]


def test_what_started_from_other_content_than_it_says_is_stale(tmp_path):
    stated = {
        "pack": "oqmd-magpie",
        "property": "band_gap",
        "model": "irnet-17",
        "recipe": "onecycle",
        "key": "k",
    }
    folder = write_run(tmp_path, 0.03, start_from="0123456789abcdef", origin=stated)
    broken = write_run(tmp_path, 0.03, start_from="fedcba9876543210", origin=stated)
    value = json.loads((broken / "result.json").read_text()) | {"origin": 5}
    (broken / "result.json").write_text(json.dumps(value))
    _, gaps = collect_runs(tmp_path)
    assert "origin must be of type dict, or null" in gaps[broken].why
    (table,) = tables_of(tmp_path)
    assert (table.recipe, table.start_from) == ("onecycle", "band_gap")
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(
        json.dumps(result | {"origin": stated | {"key": "another"}})
    )
    (table,) = tables_of(tmp_path)
    assert (table.recipe, table.stale) == ("onecycle", True)


def test_a_start_that_has_seen_test_formulas_has_a_table_of_its_own(
    tmp_path,
):
    """Pack oqmd-magpie-split1 started from one of split 0, which would else be called `itself`."""
    stated = {
        "pack": "oqmd-magpie",
        "property": "formation_energy",
        "model": "irnet-17",
        "recipe": "onecycle",
        "key": "k",
    }
    write_run(tmp_path, 0.04, start_from="0" * 16, origin=stated | {"n_shared_test": 0})
    write_run(tmp_path, 0.03, seed=1, start_from="1" * 16, origin=stated | {"n_shared_test": 7})
    folder = write_run(
        tmp_path, 0.05, seed=2, start_from="2" * 16, origin=stated | {"n_shared_test": None}
    )
    clean, seen = tables_of(tmp_path)
    assert (clean.start_from, seen.start_from) == (
        "itself",
        "itself (which has seen test formulas)",
    )
    assert (clean.rows[0].scores[0].seeds, seen.rows[0].scores[0].seeds) == ((0, 2), (1,))
    assert "(which has seen test formulas)" in seen.title and "seen-test" in seen.name
    (note,) = legend(findings_of(tmp_path))
    assert note.lines == (str(folder),) and "may have seen test formulas" in note.heading


def test_a_start_of_many_words_leaves_the_names_of_files_short(tmp_path):
    """250 letters of properties: a folder's name holds them, a figure's holds more beside them."""
    several = ",".join(f"property_{number:02}" for number in range(20))
    stated = {
        "pack": "oqmd-magpie",
        "property": several,
        "model": "irnet-17",
        "recipe": "onecycle",
        "key": "k",
    }
    write_run(tmp_path, 0.04, start_from="0" * 16, origin=stated | {"n_shared_test": 0})
    write_run(
        tmp_path,
        0.04,
        "irnet-10",
        start_from="1" * 16,
        origin=stated | {"model": "irnet-10", "n_shared_test": 0},
    )
    (table,) = tables_of(tmp_path)
    assert several in table.title and re.fullmatch(
        "oqmd-magpie_onecycle_honest_start-[0-9a-f]{6}", table.name
    )
    assert aggregate(tmp_path).returncode == 0


def test_two_starts_that_would_be_called_alike_are_refused_naming_both_folders(tmp_path):
    stated = {
        "pack": "oqmd-magpie",
        "property": "band_gap",
        "model": "irnet-17",
        "recipe": "mine",
        "key": "k",
    }
    first, second = (write_run(tmp_path, 0.03, start_from=16 * one, origin=stated) for one in "ab")
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
    assert sorted(table.rows[0].scores[0].mae for table in tables) == [0.10, 0.20]
    assert len({table.recipe for table in tables}) == 2
    (note,) = legend(findings_of(tmp_path))
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
    current, stale = sorted(tabulate(runs), key=lambda table: table.stale)
    assert current.rows[0].scores[0].mae == 0.10
    assert stale.stale
    assert any("stale" in note.heading for note in legend(findings_of(tmp_path)))


def test_a_copied_run_counts_once_and_one_that_differs_is_refused(tmp_path):
    write_run(tmp_path, 0.1)
    copy = write_run(tmp_path, 0.1, folder=tmp_path / "backup" / "some run")
    (table,) = tables_of(tmp_path)
    assert table.rows[0].scores[0].seeds == (0,)
    write_run(tmp_path, 0.2, folder=copy)
    with pytest.raises(UserError, match="the same cell with different numbers"):
        tables_of(tmp_path)


def test_one_split_alone_keeps_its_name_and_no_table_speaks_of_splits(tmp_path):
    write_split(tmp_path, 0.1, 3)
    (table,) = tables_of(tmp_path)
    assert (table.pack, table.rows[0].n_train) == ("oqmd-magpie-split3", 83)
    assert "splits" not in document([table], [], [])


@pytest.mark.parametrize(
    "identity",
    [
        {"source_sha256": "c" * 64},
        {"features": "elements"},
        {"split": {"by": "element", "elements": ["O"], "seed": 1}},
        {"split": {"by": "reduced formula", "seed": 0}},
        {"split": {"by": "column"}},
    ],
)
def test_packs_that_differ_in_more_than_the_seed_of_the_split_are_not_merged(tmp_path, identity):
    write_split(tmp_path, 0.1, 0)
    write_split(tmp_path, 0.2, 1, identity=identity)
    runs, _ = collect_runs(tmp_path)
    tables = tabulate(runs)
    assert [table.pack for table in tables] == ["oqmd-magpie", "oqmd-magpie-split1"]
    named_so = identity.get("split", {}).get("seed", 1) == 1 and "column" not in str(identity)
    notes = [note for note in legend(findings_of(tmp_path)) if "not merged" in note.heading]
    assert [note.lines for note in notes] == (
        [(f"oqmd-magpie, oqmd-magpie-split1: {next(iter(identity))}",)] if named_so else []
    )


def test_splits_by_chemistry_are_merged_over_seeds_of_their_kind_only(tmp_path):
    write_split(tmp_path, 0.1, 0)
    for split in (0, 1):
        oxygen = {"split": {"by": "element", "elements": ["O"], "seed": split}}
        write_split(
            tmp_path, 0.2 + 0.1 * split, split, pack="oqmd-magpie-element_O", identity=oxygen
        )
    assert {
        table.pack: (table.rows[0].scores[0].mae, table.splits) for table in tables_of(tmp_path)
    } == {
        "oqmd-magpie": (0.1, (0,)),
        "oqmd-magpie-element_O": (0.25, (0, 1)),
    }


def test_a_start_from_another_split_of_the_same_pack_is_one_start(tmp_path):
    for split in range(2):
        write_split(tmp_path, 0.05, split)
        of_split = [
            run
            for run in collect_runs(tmp_path)[0]
            if run.spec.pack.endswith(f"split{split}") or not split
        ]
        start_from = run_id(of_split[0].spec, RECIPES["onecycle"])
        write_split(tmp_path, 0.03, split, pack="jarvis-magpie", start_from=start_from)
    titles = [table.title for table in tables_of(tmp_path)]
    assert titles == [
        "jarvis-magpie, 2 splits, recipe onecycle, protocol honest, started from oqmd-magpie",
        "oqmd-magpie, 2 splits, recipe onecycle, protocol honest",
    ]


def test_a_run_says_what_it_started_from_where_the_origin_is_absent(tmp_path):
    for split in range(2):
        write_split(tmp_path, 0.03, split, pack="jarvis-magpie", start_from="0123456789abcdef")
    runs, _ = collect_runs(tmp_path)
    assert "started from run 01234567" in tabulate(runs)[0].title
    for i, run in enumerate(runs):
        pack = "oqmd-magpie" + (f"-split{run.split}" if run.split else "")
        origin = {
            "key": "f" * 64,
            "pack": pack,
            "property": "formation_energy",
            "model": "irnet-17",
            "train_rows": 500,
        }
        runs[i] = run._replace(result=dataclasses.replace(run.result, origin=origin))
    (table,) = tabulate(runs)
    assert table.start_from == "oqmd-magpie n500"
