"""Matrices: what a YAML file says and what becomes of it, and how it is refused."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tiny import write_pack

from irnet_hpc.architectures import MODELS, custom_name
from irnet_hpc.errors import UserError
from irnet_hpc.matrix import read_matrix
from irnet_hpc.recipes import RECIPES, resolve
from irnet_hpc.resources import Resources

JOBS = Path(__file__).parents[1] / "jobs"

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
    return [(cell.spec.pack, cell.spec.property, cell.spec.model, cell.spec.seed) for cell in matrix.cells]


def test_cells_are_the_product_of_the_axes_one_seed_of_everything_before_the_second(matrix_of):
    matrix = matrix_of("""
        packs: [alloys-magpie, alloys-elements]
        properties: [mixing_enthalpy, size_mismatch]
        models: [{architectures: [plain, irnet], depths: [10, 17]}, srnet-48]
        seeds: [0, 1]
        protocols: [honest, paper]
        recipes: [onecycle, paper]
        train_rows: [100, null]
    """)
    assert len(matrix.cells) == len(set(matrix.cells)) == 2 * 2 * 5 * 2 * 2 * 2 * 2
    half = len(matrix.cells) // 2
    assert {cell.spec.seed for cell in matrix.cells[:half]} == {0}
    assert {cell.spec.train_rows for cell in matrix.cells} == {100, None}


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
    assert resolve(json.loads(cell.recipe_option)) == cell.recipe  # what `train --recipe` is given is the same recipe


def test_a_pack_says_how_it_is_built(matrix_of, tmp_path):
    matrix = matrix_of("""
        packs:
          - alloys-magpie+elements
          - {name: mine, source: my table.csv, features: magpie, rows: 300, split_seed: 2, units: {glow: lm}, filters: false}
        properties: [mixing_enthalpy]
        models: [irnet-17]
    """)
    first, second = matrix.packs
    assert first.options == ("--source", "alloys", "--features", "magpie+elements")
    assert " ".join(second.options) == (
        "--source my table.csv --features magpie --rows 300 --split-seed 2 --no-filters --unit glow=lm"
    )
    assert second.path == tmp_path / "packs" / "mine.h5"
    assert not second.exists
    assert "could not be checked" in " ".join(matrix.notes)


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


def test_a_property_that_a_source_never_has_is_dropped_before_its_pack_is_built(matrix_of):
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
    assert [d.product for d in matrix.dropped] == ["alloys-magpie × band_gap", "alloys-magpie × glow"]
    assert matrix.dropped[0].reason == "its source may have mixing_enthalpy, size_mismatch"


def test_a_table_of_the_users_own_may_have_any_property_whatever_its_name(matrix_of):
    matrix = matrix_of("""
        packs: [oqmd-sc-magpie+structure, {name: mine, source: my/alloys.jsonl, features: structure}]
        properties: [band_gap]
        models: [irnet-17]
    """)
    assert [cell.spec.pack for cell in matrix.cells] == ["oqmd-sc-magpie+structure", "mine"]
    assert matrix.packs[0].options == ("--source", "oqmd-sc", "--features", "magpie+structure")


def test_all_stands_for_every_property_of_each_pack(matrix_of, tmp_path):
    write_pack(tmp_path / "packs", "alloys-magpie", {"mixing_enthalpy": "eV/atom", "glow": "lm"})
    write_pack(tmp_path / "packs", "alloys-elements", {"size_mismatch": "%"})
    matrix = matrix_of("""
        packs: [alloys-magpie, alloys-elements, {name: other, source: oqmd, features: magpie, properties: [band_gap]}]
        properties: all
        models: [irnet-17]
    """)
    found = [(cell.spec.pack, cell.spec.property) for cell in matrix.cells]
    assert found == [
        *(("alloys-magpie", "mixing_enthalpy"), ("alloys-magpie", "glow")),
        *(("alloys-elements", "size_mismatch"), ("other", "band_gap")),
    ]


def test_a_depth_that_an_architecture_lacks_is_dropped_from_a_product_only(matrix_of, monkeypatch):
    monkeypatch.setitem(MODELS, "srnet", (17,))
    matrix = matrix_of("""
        packs: [alloys-magpie]
        properties: [mixing_enthalpy]
        models: [{architectures: [srnet, irnet], depths: [10, 17]}]
        seeds: [0, 1]
    """)
    assert {cell.spec.model for cell in matrix.cells} == {"srnet-17", "irnet-10", "irnet-17"}
    assert [(d.product, d.reason, d.n_cells) for d in matrix.dropped] == [("srnet × 10", "srnet has depths 17", 2)]


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
    found = {cell.spec.model: (cell.resources.nodes, cell.resources.minutes) for cell in matrix.cells}
    assert found == {"plain-17": (2, 30), "irnet-17": (2, 30), "plain-48": (2, 240), "irnet-48": (1, 300)}
    assert all(cell.resources.ranks_per_node == 4 and cell.resources.memory_gb == 1.5 for cell in matrix.cells)
    assert matrix.cells[0].resources.device_hours == 2 * 4 * 0.5
    assert "resources for seed 7 fit no cell" in matrix.notes


def test_the_plan_says_when_one_rank_is_better(matrix_of):
    text = SMALL + "recipes: [paper, onecycle]\nresources: {ranks_per_node: 2}\n"
    (note,) = (note for note in matrix_of(text).notes if "one rank is faster" in note)
    assert note.startswith("recipe paper normalises 32 rows together")  # onecycle: 4 groups on each rank


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("sedes: [0]", "unknown key 'sedes' (did you mean 'seeds'?); known: budget_device_hours, init, models, pack_"),
        ("seeds: 3", "seeds must be a list with at least one whole number, however: 3"),
        ("seeds: [a]", "seeds must hold whole number, however: 'a'"),
        ("seeds: [true]", "seeds must hold whole number, however: True"),
        ("seeds: [-1]", "seed must be 0 to 2**63 - 1, however: -1"),
        ("seeds: []", "seeds must be a list with at least one"),
        ("models: [resnet-17]", "unknown architecture 'resnet' (did you mean 'srnet'?); known: adaboost, bagging, "),
        ("models: [irnet-18]", "irnet has no depth 18; known: 10, 17, 24, 48"),
        ("models: [{architectures: irnet, depths: 18}]", "unknown depth '18'"),
        ("models: [{architecture: irnet}]", "unknown key of a model 'architecture'"),
        ("models: [{architectures: irnet}]", "depths must be a list"),
        ("models: [64BAQ-1]", "of layer string '64BAQ-1' must be WIDTH[B][A|LSLOPE][R][DRATE][xCOUNT"),
        ("models: [brnet-15]", "brnet has no depth 15; known: 17"),
        ("models: [ibrnet-17]", "ibrnet is no architecture of its own: it is brnet-17 trained with recipe ibrnet"),
        ("models: [{architectures: ibrnet, depths: 17}]", "it is brnet-17 trained with recipe ibrnet"),
        ("models: {}", "architectures must be a list"),
        ("recipes: [fast]", "unknown recipe 'fast'; known: ibrnet, onecycle, paper"),
        ("recipes: [{name: a, base: paper, bach: 1}]", "unknown key of recipe 'a' 'bach' (did you mean 'batch'?)"),
        ("recipes: [{name: a, base: paper}, {name: a, base: onecycle}]", "recipes must have different names"),
        ("protocols: [fair]", "unknown protocol 'fair'; known: honest, paper"),
        ("properties: [hardness]", "unknown property 'hardness'; known: all, band_gap"),
        ("properties: {}", "properties must be a list"),
        ("packs: [../escape-magpie]", "the name of a pack must be letters, digits"),
        ("packs: [5]", "packs must hold text or mapping, however: 5"),
        ("packs: [nothing]", "nothing says how to build it"),
        ("packs: [oqdm-magpie]", "unknown source 'oqdm' (did you mean 'oqmd'?); known: "),
        ("packs: [oqmd-magpie+structure]", "pack oqmd-magpie+structure needs structures, but oqmd has formulas only"),
        ("packs: [oqmd-magpi]", "unknown feature set 'magpi' (did you mean 'magpie'?)"),
        ("packs: [{name: a, source: b, colour: c}]", "unknown key of a pack 'colour'"),
        ("packs: [{name: a, source: b, rows: many}]", "rows of pack a must be of type int, however: 'many'"),
        ("resources: {gpus: 1}", "unknown key of resources 'gpus'"),
        ("resources: {minutes: 0}", "minutes must be a whole number from 1"),
        ("resources: {nodes: 1.5}", "nodes must be a whole number"),
        ("resources: [{for: {colour: red}}]", "unknown key of for in resources 'colour'"),
        ("resources: fast", "resources must be a mapping"),
        (
            "resources: {nodes: 3}",
            f"of recipe onecycle must divide over the ranks, however: {RECIPES['onecycle'].batch} and 3",
        ),
        ("pack_resources: {nodes: 2}", "pack_resources must be of one rank, however: 2"),
        ("budget_device_hours: much", "budget_device_hours must be a number of hours, however: 'much'"),
        ("train_rows: [0]", "train_rows must be positive, however: 0"),
        ("? [1, 2]\n: 3", "not YAML"),
        ("- 1", "line 5, column 1: not YAML"),
        ("seeds: [0", "not YAML"),
        ("seeds: [0]\nseeds: [1]", "line 6: key given twice: seeds"),
    ],
)
def test_bad_input_is_one_sentence_that_names_the_file(matrix_of, more, sentence):
    key = more.partition(":")[0]
    kept = "\n".join(line for line in SMALL.splitlines() if not line.startswith(f"{key}:"))
    with pytest.raises(UserError) as error:
        matrix_of(f"{kept}\n{more}\n")
    assert sentence in str(error.value)
    assert "mine.yaml: " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "- a", "just words", "\0"])
def test_a_file_that_is_no_mapping_is_refused(matrix_of, text):
    with pytest.raises(UserError, match=r"mine\.yaml: "):
        matrix_of(text)


@pytest.mark.parametrize(
    "stated", ["features: elements", "rows: 5", "split_seed: 3", "features: magpie, filters: false"]
)
def test_a_pack_of_the_name_that_was_built_otherwise_is_refused(matrix_of, tmp_path, stated):
    units, filters = {"mixing_enthalpy": "eV/atom"}, ["a rule"]
    write_pack(tmp_path / "packs", "alloys-magpie", units, features="magpie", filters=filters)
    text = SMALL.replace("alloys-magpie", "{name: alloys-magpie, source: alloys, %s}")
    with pytest.raises(
        UserError, match=r"of pack alloys-magpie must be what .*alloys-magpie\.h5 was built with, however"
    ):
        matrix_of(text % stated)
    assert matrix_of(text % "features: magpie, rows: 5000, split_seed: 0, filters: true").cells


def test_a_product_beyond_reason_is_refused_before_it_fills_the_memory(matrix_of):
    seeds = list(range(2000))
    with pytest.raises(UserError, match="at most 1,000,000 cells, however: 4,000,000"):
        matrix_of(f"{SMALL}\nseeds: {seeds}\ntrain_rows: {[n + 1 for n in seeds]}\n")


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_matrix_costs_what_its_comment_says(path, tmp_path):
    matrix = read_matrix(path, tmp_path)
    comment = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    n_cells, hours = len(matrix.cells), sum(cell.resources.device_hours for cell in matrix.cells)
    assert re.search(rf"\b{n_cells:,} cells", comment)
    assert f"at most {f'{hours:,.1f}'.removesuffix('.0')} device-hours" in comment
    assert hours <= matrix.budget_device_hours


def test_planning_imports_neither_torch_nor_matminer_nor_submitit(tmp_path):
    (tmp_path / "mine.yaml").write_text(SMALL)
    code = """
import sys
from irnet_hpc import sweep
assert sweep.main(["plan", "mine.yaml"]) == 0
assert not {"torch", "matminer", "pymatgen", "pandas", "submitit", "horovod"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={"PYTHONPATH": str(JOBS.parent)})
