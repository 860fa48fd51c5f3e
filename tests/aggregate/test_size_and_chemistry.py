"""One property across tables: training rows and held-out chemistry."""

from irnet_hpc.aggregate.sections.size_and_chemistry import chemistry_section, size_section
from irnet_hpc.aggregate.series import chemistry_series, size_series
from irnet_hpc.runs.recipes import RECIPES
from tests.aggregate.results import (
    findings_of,
    tables_of,
    texts,
    write_run,
    write_sizes,
    write_split,
)


def test_each_number_of_training_rows_has_its_own_best_classical_model(
    tmp_path,
):
    write_sizes(tmp_path)
    networks, classical = sorted(
        size_series(tables_of(tmp_path)), key=lambda series: series.table.recipe == "grid"
    )
    assert [model[0] for model in classical.models] == ["ridge", "random_forest"]
    blocks = {block.name: block for block in size_section(findings_of(tmp_path)).blocks}
    block = blocks[networks.name]
    assert block.title == "formation_energy, oqmd-magpie, recipe onecycle, protocol honest"
    assert texts(block) == [
        ["training rows", "baseline (eV/atom)", "best classical", "plain-17", "irnet-17"],
        ["100", "0.500", "random_forest 0.150 (n=1)", "not run", "0.200 ± 0.014 (n=2)"],
        ["1,000", "0.5000", "ridge 0.1200 (n=1; no seed)", "0.3000 (n=1)", "0.1000 (n=1)"],
    ]
    assert [[cell.bold for cell in line].index(True) for line in block.lines[1:]] == [2, 4]


def test_a_single_number_of_rows_or_unlike_protocols_and_recipes_are_no_series(tmp_path):
    write_run(tmp_path, 0.1)
    write_run(tmp_path, 0.1, train_rows=50, n_train=50, protocol="paper", recipe=RECIPES["paper"])
    write_run(tmp_path, 0.1, train_rows=50, n_train=50, property="band_gap")
    assert size_series(tables_of(tmp_path)) == ()


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
    (block,) = chemistry_section(findings_of(tmp_path)).blocks
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
    records = chemistry_section(findings_of(tmp_path)).records
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
    assert series.table.start_from == "oqmd-magpie band_gap"
    assert [point.test for point in series.points] == ["random", "element O"]


def test_splits_that_hold_nothing_out_are_no_chemistry(tmp_path):
    write_split(tmp_path, 0.1, 0)
    write_split(tmp_path, 0.1, 0, pack="copy")
    write_split(tmp_path, 0.1, 0, pack="own", identity={"split": {"by": "column"}})
    assert chemistry_series(tables_of(tmp_path)) == ()
