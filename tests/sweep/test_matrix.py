"""Matrices: what a YAML file says and what becomes of it, and how it is refused."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from irnet_hpc.data import alloys
from irnet_hpc.data.elements import FAMILIES
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.data.sources import SOURCES
from irnet_hpc.data.splits import SplitRule, parse_split_rule, split_suffix_in
from irnet_hpc.errors import UserError
from irnet_hpc.models.architectures import MODELS, custom_name
from irnet_hpc.pack import cli as pack
from irnet_hpc.pack.pipeline import pack_name
from irnet_hpc.runs.recipes import RECIPES, resolve
from irnet_hpc.sweep.jobs import pack_command
from irnet_hpc.sweep.matrix.matrix import read_matrix
from irnet_hpc.sweep.matrix.resources import Resources
from tests.builders import write_pack
from tests.data.structures.files import cif, folder

JOBS = Path(__file__).parents[2] / "jobs"

SMALL = """
packs: [alloys-magpie]
properties: [mixing_enthalpy]
models: [irnet-17]
"""


@pytest.fixture
def matrix_of(tmp_path):
    """Text -> the matrix that it stands for, with packs in tmp_path/packs."""

    def read(text: str, name: str = "mine"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(textwrap.dedent(text))
        return read_matrix(path, tmp_path / "packs")

    return read


def names(matrix) -> list[tuple]:
    return [
        (cell.spec.pack, cell.spec.property, cell.spec.model, cell.spec.seed)
        for cell in matrix.cells
    ]


def test_cells_are_the_product_of_the_axes_seed_by_seed(matrix_of):
    matrix = matrix_of("""
        packs: [alloys-magpie, alloys-elements]
        properties: [mixing_enthalpy, size_mismatch]
        models: [{architectures: [plain, irnet], depths: [10, 17]}, srnet-48]
        seeds: [0, 1]
        protocols: [honest, paper]
        recipes: [onecycle, paper]
        train_rows: [100, all, null]
    """)
    assert len(matrix.cells) == len(set(matrix.cells)) == 2 * 2 * 5 * 2 * 2 * 2 * 2
    half = len(matrix.cells) // 2
    assert {cell.spec.seed for cell in matrix.cells[:half]} == {0}
    assert {cell.spec.train_rows for cell in matrix.cells} == {100, None}


def test_a_resource_shape_can_be_for_the_cells_with_all_training_rows(matrix_of):
    shapes = "resources: [{minutes: 5}, {for: {train_rows: all}, minutes: 90}]"
    matrix = matrix_of(f"{SMALL}train_rows: [100, all]\n{shapes}\n")
    assert {cell.spec.train_rows: cell.resources.minutes for cell in matrix.cells} == {
        100: 5,
        None: 90,
    }


def test_what_is_left_out_has_the_defaults_of_a_run(matrix_of):
    (cell,) = matrix_of(SMALL).cells
    assert (cell.spec.recipe, cell.spec.protocol, cell.spec.seed, cell.spec.train_rows) == (
        "onecycle",
        "honest",
        0,
        None,
    )
    assert cell.recipe == RECIPES["onecycle"]
    assert cell.resources == Resources(1, 1, 1, 0, 8.0, 60)


def test_what_is_said_twice_is_one_cell(matrix_of):
    matrix = matrix_of("""
        packs: [alloys-magpie, alloys-magpie]
        properties: [mixing_enthalpy, mixing_enthalpy]
        models: [irnet-17, {architectures: [irnet, irnet], depths: 17}, irnet-17]
        seeds: [0, 0]
    """)
    assert names(matrix) == [("alloys-magpie", "mixing_enthalpy", "irnet-17", 0)]


def test_a_layer_string_and_an_inline_recipe_are_cells_like_any_other(matrix_of):
    (cell,) = matrix_of("""
        packs: alloys-magpie
        properties: mixing_enthalpy
        models: 64BARx2-32BA-1
        recipes: {name: mine, base: paper, batch: 64, learning_rate: 1e-3}
    """).cells
    assert (cell.spec.architecture, cell.spec.depth) == (custom_name("64BARx2-32BA-1"), 4)
    assert cell.spec.layers == "64BARx2-32BA-1"
    assert (cell.recipe.batch, cell.recipe.learning_rate) == (64, 0.001)
    assert (
        resolve(json.loads(cell.recipe_option)) == cell.recipe
    )  # what `train --recipe` is given is the same recipe


def test_a_pack_says_how_it_is_built(matrix_of, tmp_path):
    matrix = matrix_of("""
        packs:
          - alloys-magpie+elements
          - {name: mine, source: my table.csv, features: magpie, rows: 300, split_seed: 2,
             units: {glow: lm}, filters: false}
        properties: [mixing_enthalpy]
        models: [irnet-17]
    """)
    first, second = matrix.packs
    assert first.options == ("--source", "alloys", "--features", "magpie+elements")
    assert " ".join(second.options) == (
        "--source my table.csv --features magpie --rows 300 --split-seed 2 --no-filters "
        "--unit glow=lm"
    )
    assert second.path == tmp_path / "packs" / "mine.h5"
    assert not second.exists
    assert "could not be checked" in " ".join(matrix.notes)


def test_splits_of_a_matrix_are_an_axis_of_packs_without_their_own(matrix_of):
    matrix = matrix_of("""
        packs:
          - oqmd-magpie
          - {name: mine, source: my.csv, features: elements, split_seeds: [3]}
          - {name: fixed, source: my.csv, split: "element:Cl+F", split_seed: 2}
        properties: [band_gap]
        models: [irnet-17]
        split_seeds: [0, 1]
        splits: [random, element:O]
    """)
    oqmd, mine = "--source oqmd --features magpie", "--source my.csv --features elements"
    found = {pack.name: " ".join(pack.options) for pack in matrix.packs}
    assert found == {
        "oqmd-magpie": f"{oqmd} --split random --split-seed 0",
        "oqmd-magpie-split1": f"{oqmd} --split random --split-seed 1",
        "oqmd-magpie-element_O": f"{oqmd} --split element:O --split-seed 0",
        "oqmd-magpie-element_O-split1": f"{oqmd} --split element:O --split-seed 1",
        "mine-split3": f"{mine} --split random --split-seed 3",
        "mine-element_O-split3": f"{mine} --split element:O --split-seed 3",
        "fixed": "--source my.csv --split element:Cl+F --split-seed 2",
    }
    described = {pack.name: (pack.base, pack.split) for pack in matrix.packs}
    assert described["oqmd-magpie-element_O-split1"] == (
        "oqmd-magpie",
        SplitRule("element", "O", 1),
    )
    assert described["mine-split3"] == ("mine", SplitRule(seed=3))
    assert described["fixed"] == ("fixed", SplitRule("element", "F+Cl", 2))
    assert all(one.name == one.base + split_suffix_in(one.name) for one in matrix.packs)


def test_a_pack_has_the_name_that_its_command_would_give_it(matrix_of):
    matrix = matrix_of("""
        packs: [oqmd-magpie, oqmd-magpie+elements]
        properties: [band_gap]
        models: [irnet-17]
        split_seeds: [0, 4]
        splits: [random, "element:O", element:F+Cl, family:alkaline_earth]
    """)
    assert len(matrix.packs) == 16
    for planned in matrix.packs:
        options = pack.pack_options(pack.parser().parse_args(planned.options))
        split = parse_split_rule(options.split, options.split_seed)
        assert split == planned.split
        assert pack_name(options, resolve_source(options.source), split) == planned.name


def test_a_table_of_ones_own_is_read_as_the_matrix_says(matrix_of, tmp_path):
    (tmp_path / "lab.csv").write_text(
        "Composition,Eg (meV),Other\n"
        + "".join(f"Fe{n}O,{1000 + n},1\n" for n in range(1, 60))
        + "MgO,-9999,2\nFeO,2001,3\n"
    )
    text = f"""
        packs:
          - {{name: lab, source: {tmp_path}/lab.csv, features: elements, missing: [na, -9999],
             rename: {{"Eg (meV)": band_gap}}, drop: Other, duplicates: mean}}
        properties: [band_gap]
        models: [irnet-17]
    """
    (planned,) = matrix_of(text).packs
    subprocess.run(pack_command(planned, 1), cwd=JOBS.parent, check=True, capture_output=True)
    (built,) = matrix_of(text).packs
    assert built.exists and built.identity["reading"] == {
        "rename": {"Eg (meV)": "band_gap"},
        "drop": ["Other"],
        "missing": ["-9999", "na"],
        "duplicates": "mean",
    }
    for old, new in (("-9999", "-99"), ("drop: Other", "drop: Composition"), ("mean", "first")):
        with pytest.raises(UserError, match=r"is not the one that .*lab\.h5 was built with"):
            matrix_of(text.replace(old, new))
    for value in ("missing: 3", "duplicates: min", "rename: [a]"):
        with pytest.raises(UserError, match=rf"{value.split(':')[0]} of pack x must be"):
            matrix_of(f"""
                packs: [{{name: x, source: my.csv, {value}}}]
                properties: [band_gap]
                models: [irnet-17]
            """)


def test_packs_built_as_a_matrix_says_are_those_it_asks_for(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("""
packs:
  - {name: few, source: alloys, features: elements, rows: 100,
     split_seeds: [0, 1], splits: [random, family:3d]}
properties: [mixing_enthalpy]
models: [irnet-17]
""")
    planned = read_matrix(path, tmp_path / "packs")
    for one in planned.packs:
        subprocess.run(pack_command(one, 1), cwd=JOBS.parent, check=True, capture_output=True)
    built = read_matrix(path, tmp_path / "packs")
    assert all(one.exists for one in built.packs)
    assert [(one.name, one.base, one.split) for one in built.packs] == [
        (one.name, one.base, one.split) for one in planned.packs
    ]
    assert [cell.spec for cell in built.cells] == [cell.spec for cell in planned.cells]


def test_one_split_of_everything_comes_before_the_second(matrix_of):
    matrix = matrix_of("""
        packs: [alloys-magpie, alloys-elements]
        properties: [mixing_enthalpy]
        models: [irnet-17]
        split_seeds: [0, 1]
        seeds: [0, 1]
    """)
    assert [(seed, pack) for pack, _, _, seed in names(matrix)] == [
        (seed, pack + split)
        for seed in (0, 1)
        for split in ("", "-split1")
        for pack in ("alloys-magpie", "alloys-elements")
    ]


@pytest.mark.parametrize(
    "splits", ["families", "[families]", '"family:*"', "[family:3d, families]"]
)
def test_families_are_every_family_that_the_source_may_have(matrix_of, splits):
    matrix = matrix_of(SMALL + f"splits: {splits}")
    lacking = ["hydrogen", "chalcogens", "halogens", "noble_gases"]
    assert sorted(pack.split.held_out for pack in matrix.packs) == sorted(
        FAMILIES.keys() - set(lacking)
    )
    assert [d.product for d in matrix.dropped] == [
        f"alloys-magpie-family_{name} × mixing_enthalpy" for name in lacking
    ]
    assert matrix.dropped[2].reason == "no row of alloys contains F, Cl, Br, I or At"
    assert len(matrix.cells) == len(FAMILIES) - len(lacking)


def test_an_element_that_a_source_never_has_is_dropped(matrix_of):
    matrix = matrix_of(SMALL + "splits: [element:O, element:F+Cl, element:O+Al]")
    assert [pack.name for pack in matrix.packs] == ["alloys-magpie-element_O+Al"]
    assert [d.reason for d in matrix.dropped] == [
        "no row of alloys contains O",
        "no row of alloys contains F or Cl",
    ]


def test_what_alloys_are_said_to_lack_they_lack_and_nothing_else():
    elements = set(alloys.element_data()[0])
    assert set(SOURCES["alloys"].lacks) == {
        name for name, of in FAMILIES.items() if not elements.intersection(of)
    }


def test_resources_of_a_pack_are_those_of_all_its_splits(matrix_of):
    matrix = matrix_of("""
        packs: [alloys-magpie, alloys-elements]
        properties: [mixing_enthalpy]
        models: [irnet-17]
        splits: [random, family:3d]
        split_seeds: [0, 1]
        resources:
          - {minutes: 10}
          - {for: {pack: alloys-magpie}, minutes: 20}
          - {for: {pack: alloys-magpie-family_3d-split1}, minutes: 30}
    """)
    found = {cell.spec.pack: cell.resources.minutes for cell in matrix.cells}
    assert [minutes for pack, minutes in found.items() if "elements" in pack] == [10] * 4
    assert {pack: minutes for pack, minutes in found.items() if minutes > 10} == {
        "alloys-magpie": 20,
        "alloys-magpie-split1": 20,
        "alloys-magpie-family_3d": 20,
        "alloys-magpie-family_3d-split1": 30,
    }
    assert "no cell matches" not in " ".join(matrix.notes)


def test_a_built_pack_has_the_split_that_it_was_built_with(matrix_of, tmp_path):
    units, folder = {"band_gap": "eV"}, tmp_path / "packs"
    oxygen = {"by": "element", "elements": ["O"], "seed": 1}
    write_pack(folder, "mp-magpie-element_O-split1", units, features="magpie", split=oxygen)
    write_pack(folder, "own", units, split={"by": "column"})
    write_pack(folder, "old-element_O", units, split=oxygen)
    small = SMALL.replace("alloys", "mp").replace("mixing_enthalpy", "band_gap")
    matrix = matrix_of(small.replace("mp-magpie", "mp-magpie-element_O-split1, own, old-element_O"))
    assert [(pack.base, pack.split) for pack in matrix.packs] == [
        ("mp-magpie-element_O-split1", SplitRule("element", "O", 1)),
        ("own", None),
        ("old-element_O", SplitRule("element", "O", 1)),
    ]
    matrix = matrix_of(small + "splits: [element:O]\nsplit_seeds: [0, 1]")
    assert [(pack.name, pack.exists) for pack in matrix.packs] == [
        ("mp-magpie-element_O", False),
        ("mp-magpie-element_O-split1", True),
    ]
    with pytest.raises(
        UserError,
        match=r"split_seed of pack old-element_O .* 0",
    ):
        matrix_of(small.replace("mp-magpie", "{name: old, splits: [element:O], split_seeds: [0]}"))
    with pytest.raises(UserError, match=r"split of pack own .* element:O"):
        matrix_of(small.replace("mp-magpie", "{name: own, split: element:O}"))
    with pytest.raises(
        UserError, match=r"pack own-split1 is not in .* and the matrix does not state how"
    ):
        matrix_of(small.replace("mp-magpie", "own") + "split_seeds: [0, 1]")


def test_a_property_that_a_pack_lacks_is_dropped_with_the_reason(matrix_of, tmp_path):
    write_pack(tmp_path / "packs", "alloys-magpie", {"mixing_enthalpy": "eV/atom", "glow": "lm"})
    matrix = matrix_of("""
        packs: [alloys-magpie]
        properties: [mixing_enthalpy, band_gap]
        models: [irnet-17, irnet-48]
        seeds: [0, 1, 2]
    """)
    assert {cell.spec.property for cell in matrix.cells} == {"mixing_enthalpy"}
    (dropped,) = matrix.dropped
    assert (dropped.product, dropped.n_cells) == ("alloys-magpie × band_gap", 6)
    assert "glow, mixing_enthalpy" in dropped.reason
    assert matrix.notes == ()


def test_a_property_that_a_source_never_has_is_dropped(matrix_of):
    matrix = matrix_of("""
        packs: [alloys-magpie, {name: mine, source: mine.csv, units: {glow: lm}}]
        properties: [mixing_enthalpy, band_gap, glow]
        models: [irnet-17]
    """)
    found = [(cell.spec.pack, cell.spec.property) for cell in matrix.cells]
    assert found == [
        ("alloys-magpie", "mixing_enthalpy"),
        *(("mine", p) for p in ("mixing_enthalpy", "band_gap", "glow")),
    ]
    assert [d.product for d in matrix.dropped] == [
        "alloys-magpie × band_gap",
        "alloys-magpie × glow",
    ]
    assert matrix.dropped[0].reason == "its source may have mixing_enthalpy, size_mismatch"


def test_a_table_of_the_users_own_may_have_any_property(matrix_of):
    matrix = matrix_of("""
        packs:
          - oqmd-sc-magpie+structure
          - {name: mine, source: my/alloys.jsonl, features: structure}
        properties: [band_gap]
        models: [irnet-17]
    """)
    assert [cell.spec.pack for cell in matrix.cells] == ["oqmd-sc-magpie+structure", "mine"]
    assert matrix.packs[0].options == ("--source", "oqmd-sc", "--features", "magpie+structure")


def test_all_stands_for_every_property_of_each_pack(matrix_of, tmp_path):
    write_pack(tmp_path / "packs", "alloys-magpie", {"mixing_enthalpy": "eV/atom", "glow": "lm"})
    write_pack(tmp_path / "packs", "alloys-elements", {"size_mismatch": "%"})
    matrix = matrix_of("""
        packs:
          - alloys-magpie
          - alloys-elements
          - {name: other, source: oqmd, features: magpie, properties: [band_gap]}
        properties: all
        models: [irnet-17]
    """)
    found = [(cell.spec.pack, cell.spec.property) for cell in matrix.cells]
    assert found == [
        *(("alloys-magpie", "mixing_enthalpy"), ("alloys-magpie", "glow")),
        *(("alloys-elements", "size_mismatch"), ("other", "band_gap")),
    ]


def test_a_depth_that_an_architecture_lacks_is_dropped_from_products(matrix_of, monkeypatch):
    monkeypatch.setitem(MODELS, "srnet", (17,))
    matrix = matrix_of("""
        packs: [alloys-magpie]
        properties: [mixing_enthalpy]
        models: [{architectures: [srnet, irnet], depths: [10, 17]}]
        seeds: [0, 1]
    """)
    assert {cell.spec.model for cell in matrix.cells} == {"srnet-17", "irnet-10", "irnet-17"}
    assert [(d.product, d.reason, d.n_cells) for d in matrix.dropped] == [
        ("srnet × 10", "srnet has depths 17", 2)
    ]


def test_resources_narrow_and_the_last_that_fits_decides(matrix_of):
    matrix = matrix_of("""
        packs: [alloys-magpie]
        properties: [mixing_enthalpy]
        models: [{architectures: [plain, irnet], depths: [17, 48]}]
        resources:
          - {nodes: 2, ranks_per_node: 4, memory_gb: 1.5, minutes: 30}
          - {for: {depth: 48}, minutes: 240}
          - {for: {model: [irnet-48, irnet-24]}, minutes: 300, nodes: 1}
          - {for: {seed: 7}, minutes: 1}
    """)
    found = {
        cell.spec.model: (cell.resources.nodes, cell.resources.minutes) for cell in matrix.cells
    }
    assert found == {
        "plain-17": (2, 30),
        "irnet-17": (2, 30),
        "plain-48": (2, 240),
        "irnet-48": (1, 300),
    }
    assert all(
        cell.resources.ranks_per_node == 4 and cell.resources.memory_gb == 1.5
        for cell in matrix.cells
    )
    assert matrix.cells[0].resources.device_hours == 2 * 4 * 0.5
    assert "no cell matches the resources for seed 7" in matrix.notes


def test_the_plan_says_when_one_rank_is_better(matrix_of):
    text = SMALL + "recipes: [paper, onecycle]\nresources: {ranks_per_node: 2}\n"
    (note,) = (note for note in matrix_of(text).notes if "one rank is faster" in note)
    assert note.startswith(
        "recipe paper normalises 32 rows together"
    )  # onecycle: 4 groups on each rank


# What is wrong, and words of the message: the key, the value, or the known name that is nearest.
MISTAKES = [
    ("sedes: [0]", "sedes seeds budget_device_hours"),
    ("seeds: 3", "seeds list 3"),
    ("seeds: [a]", "seeds whole 'a'"),
    ("train_rows: 5", "train_rows list 5"),
    ("train_rows: [every]", "train_rows whole 'every'"),
    ("train_rows: [true]", "train_rows whole True"),
    ("seeds: [true]", "seeds whole True"),
    ("seeds: [-1]", "seed 2**63 -1"),
    ("seeds: []", "seeds list []"),
    ("models: [resnet-17]", "resnet srnet adaboost"),
    ("models: [irnet-18]", "irnet 18 48"),
    ("models: [{architectures: irnet, depths: 18}]", "depth 18 48"),
    ("models: [{architectures: irnet, depths: x}]", "depths whole"),
    ("models: [{architecture: irnet}]", "architecture architectures"),
    ("models: [{architectures: irnet}]", "depths list"),
    ("models: [64BAQ-1]", "64BAQ-1 WIDTH"),
    ("models: [brnet-15]", "brnet 15 17"),
    ("models: [ibrnet-17]", "ibrnet brnet-17 recipe"),
    ("models: [{architectures: ibrnet, depths: 17}]", "ibrnet brnet-17 recipe"),
    ("models: {}", "architectures list"),
    ("recipes: [fast]", "recipe fast onecycle"),
    ("recipes: [{name: a, base: paper, bach: 1}]", "bach batch 'a'"),
    ("recipes: [{name: a, base: paper}, {name: a, base: onecycle}]", "recipe name a"),
    ("protocols: [fair]", "protocol fair honest"),
    ("properties: [hardness]", "property hardness band_gap"),
    ("properties: {}", "properties {}"),
    ("packs: [../escape-magpie]", "pack name ../escape-magpie"),
    ("packs: [5]", "packs text mapping 5"),
    ("packs: [nothing]", "pack nothing build"),
    ("packs: [oqdm-magpie]", "source oqdm oqmd"),
    ("packs: [oqmd-magpie+structure]", "oqmd-magpie+structure structures"),
    ("packs: [oqmd-magpi]", "magpi magpie"),
    ("packs: [{name: a, source: b, colour: c}]", "key pack colour"),
    ("packs: [{name: a, source: b, rows: many}]", "rows pack a whole many"),
    ("packs: [{name: a, source: b, rows: true}]", "rows pack a whole True"),
    ("packs: [{name: a, source: b, filters: 1}]", "filters pack a true false"),
    ("packs: [{name: a, source: b, units: 5}]", "units pack a mapping 5"),
    ("packs: [{name: a, source: b, split_seed: 1, split_seeds: [1]}]", "split_seed split_seeds"),
    ("packs: [{name: a, source: b, split: random, splits: families}]", "split splits both"),
    ("packs: [{name: a, source: b, split_seed: -1}]", "split_seed pack a -1"),
    ("packs: [{name: a, source: b, split: element:Fo}]", "element Fo"),
    ("packs: [{name: a, source: b, splits: 5}]", "splits list text 5"),
    ("splits: [family:halogen]", "halogen halogens 3d"),
    ("splits: [familys]", "familys family random"),
    ("splits: []", "splits list []"),
    ("split_seeds: 5", "split_seeds list 5"),
    ("split_seeds: [0, -1]", "split_seeds 0 -1"),
    (
        "packs: [alloys-magpie, {name: alloys-magpie-split1, source: alloys}]\nsplit_seeds: [0, 1]",
        "pack name alloys-magpie-split1",
    ),
    ("resources: {gpus: 1}", "key resources gpus"),
    ("resources: {minutes: 0}", "minutes 1 0"),
    ("resources: {nodes: 1.5}", "nodes whole 1.5"),
    ("resources: {memory_gb: .nan}", "memory_gb number nan"),
    ("resources: {cpu_only: 1}", "cpu_only true false"),
    ("resources: {stage_dir: here}", "stage_dir auto absolute here"),
    ("resources: {cpu_only: true, gpus_per_rank: 1}", "gpus_per_rank cpu_only 1"),
    ("resources: [{for: {colour: red}}]", "for resources colour"),
    ("resources: fast", "resources mapping fast"),
    ("resources: {nodes: 3}", "batch onecycle ranks 512 3"),
    ("pack_resources: {nodes: 2}", "pack_resources rank 2"),
    ("budget_device_hours: much", "budget_device_hours number much"),
    ("budget_device_hours: -1", "budget_device_hours number -1"),
    ("train_rows: [0]", "train_rows positive 0"),
    ("? [1, 2]\n: 3", "line 5 key text sequence"),
    ("- 1", "line 5 column 1"),
    ("seeds: [0", "line YAML"),
    ("seeds: [0]\nseeds: [1]", "line 6 seeds twice"),
]


@pytest.mark.parametrize(("text", "words"), MISTAKES)
def test_a_mistake_is_one_sentence_that_names_file_key_and_value(matrix_of, text, words):
    key = text.partition(":")[0]
    kept = "\n".join(line for line in SMALL.splitlines() if not line.startswith(f"{key}:"))
    with pytest.raises(UserError) as error:
        matrix_of(f"{kept}\n{text}\n")
    message = str(error.value)
    assert [word for word in words.split() if word.lower() not in message.lower()] == []
    assert "mine.yaml: " in message and "\n" not in message


@pytest.mark.parametrize("text", ["", "- a", "just words", "\0"])
def test_a_file_that_is_no_mapping_is_refused(matrix_of, text):
    with pytest.raises(UserError, match=r"mine\.yaml: "):
        matrix_of(text)


@pytest.mark.parametrize(
    "stated",
    [
        "features: elements",
        "rows: 5",
        "split_seed: 3",
        "split: element:O",
        "features: magpie, filters: false",
    ],
)
def test_a_pack_of_the_name_that_was_built_otherwise_is_refused(matrix_of, tmp_path, stated):
    units, filters = {"mixing_enthalpy": "eV/atom"}, ["a rule"]
    write_pack(tmp_path / "packs", "alloys-magpie", units, features="magpie", filters=filters)
    text = SMALL.replace("alloys-magpie", "{name: alloys-magpie, source: alloys, %s}")
    with pytest.raises(
        UserError,
        match=r"of pack alloys-magpie .*alloys-magpie\.h5",
    ):
        matrix_of(text % stated)
    assert matrix_of(
        text % "features: magpie, rows: 5000, split: random, split_seed: 0, filters: true"
    ).cells


def test_a_product_of_too_many_cells_is_refused(matrix_of):
    seeds = list(range(2000))
    with pytest.raises(UserError, match=r"1,000,000.* 4,000,000"):
        matrix_of(f"{SMALL}\nseeds: {seeds}\ntrain_rows: {[n + 1 for n in seeds]}\n")


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_matrix_costs_what_its_comment_says(path, tmp_path):
    matrix = read_matrix(path, tmp_path)
    comment = " ".join(
        line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#")
    )
    n_cells, hours = len(matrix.cells), sum(cell.resources.device_hours for cell in matrix.cells)
    assert re.search(rf"\b{n_cells:,} cells", comment)
    assert f"at most {f'{hours:,.1f}'.removesuffix('.0')} device-hours" in comment
    assert hours <= matrix.budget_device_hours


def test_the_lines_to_uncomment_in_my_table_are_within_its_budget(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "cifs", {"a.cif": cif()})
    text = (JOBS / "my_table.yaml").read_text(encoding="utf-8")
    dealt = text.replace("# folds: 5", "folds: 5")
    crystals = [line for line in text.splitlines() if line.startswith("  # - {name: ")]
    lines = [line for line in dealt.splitlines() if not line.startswith("  - {name: my-magpie")]
    folds, structures = tmp_path / "folds.yaml", tmp_path / "structures.yaml"
    folds.write_text(dealt)
    structures.write_text("\n".join(lines).replace(crystals[0], crystals[0].replace("# ", "")))
    for path, name in ((folds, "my-magpie"), (structures, "my-crystals")):
        matrix = read_matrix(path, tmp_path)
        hours = sum(cell.resources.device_hours for cell in matrix.cells)
        assert len(matrix.cells) == 65 and hours <= matrix.budget_device_hours
        assert {cell.spec.pack for cell in matrix.cells} == {
            f"{name}-folds5-fold{fold}" for fold in range(5)
        }
        comment = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
        assert f"{len(matrix.cells)} cells" in comment and f"{hours:g} device-hours" in comment


def test_planning_imports_neither_torch_nor_matminer_nor_submitit(tmp_path):
    (tmp_path / "mine.yaml").write_text(SMALL)
    code = """
import sys
from irnet_hpc.sweep import cli as sweep
assert sweep.main(["plan", "mine.yaml"]) == 0
assert not {"torch", "matminer", "pymatgen", "pandas", "submitit", "horovod"} & sys.modules.keys()
"""
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, env={"PYTHONPATH": str(JOBS.parent)}
    )


BUILT = r"is not the one that .*lab\.h5 was built with"


@pytest.fixture
def lab(matrix_of, tmp_path):
    """Build the pack of a table; then entries of the pack and source -> the matrix's pack."""

    def pack(more: str = "", table: str = "lab"):
        (found,) = matrix_of(f"""
            packs: [{{name: lab, source: {tmp_path}/{table}.csv, features: elements{more}}}]
            properties: [band_gap]
            models: [irnet-17]
        """).packs
        return found

    def build(text: str):
        for table in ("lab", "other"):
            (tmp_path / f"{table}.csv").write_text(text)
        subprocess.run(pack_command(pack(), 1), cwd=JOBS.parent, check=True, capture_output=True)
        return pack

    return build


def test_a_pack_of_another_table_or_another_rule_for_duplicates_is_refused(lab):
    """Graphite's row has the lower energy: the pack holds its gap, and not the median of both."""
    rows = "".join(f"Fe{n}O,a{n},{n / 10},-1\n" for n in range(1, 60))
    phases = "C,graphite,0.0,0.0\nC,diamond,4.2,0.13\n"
    pack = lab(f"formula,material_id,band_gap,formation_energy\n{phases}{rows}")
    for same in ("", ", duplicates: lowest-energy"):
        assert pack(same).exists
    for other in ({"more": ", duplicates: median"}, {"table": "other"}):
        with pytest.raises(UserError, match=BUILT):
            pack(**other)


def test_a_pack_of_structures_with_another_table_of_properties_is_refused(matrix_of, tmp_path):
    crystals = folder(tmp_path / "crystals", {f"{n}.cif": cif() for n in range(60)})
    for name in ("gaps.csv", "others.csv"):
        rows = "".join(f"{n}.cif,{n / 10}\n" for n in range(60))
        (tmp_path / name).write_text(f"file,band_gap\n{rows}")

    def pack(table: str):
        (found,) = matrix_of(f"""
            packs:
              - {{name: lab, source: {crystals}, features: structure,
                  properties_table: {tmp_path}/{table}}}
            properties: [band_gap]
            models: [irnet-17]
        """).packs
        return found

    subprocess.run(pack_command(pack("gaps.csv"), 1), cwd=JOBS.parent, check=True)
    assert pack("gaps.csv").exists
    with pytest.raises(UserError, match=BUILT):
        pack("others.csv")


def test_without_phases_the_median_and_the_lowest_energy_are_one_rule(lab):
    rows = "".join(f"Fe{n}O,{n / 10}\n" for n in range(1, 60))
    pack = lab(f"formula,band_gap\n{rows}Fe1O,0.3\n")
    for rule in ("lowest-energy", "median"):
        assert pack(f", duplicates: {rule}").exists
    with pytest.raises(UserError, match=BUILT):
        pack(", duplicates: mean")
