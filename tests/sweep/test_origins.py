"""Hold which cells `init` makes, their order, and their state while an origin is not done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.files import write_json
from irnet_hpc.runs.portable import shipped_result
from irnet_hpc.runs.spec import read_recipe, read_spec, run_id, run_key
from irnet_hpc.sweep import cell_attempt
from irnet_hpc.sweep.cell_states import cell_name, read_ledger
from irnet_hpc.sweep.jobs import train_options
from irnet_hpc.sweep.matrix.matrix import read_matrix
from tests.builders import write_pack, write_result
from tests.sweep.stand_ins import LAST, Place, Slurm

ROOT = Path(__file__).parents[2]

BOTH = """
packs: [alloys-magpie]
properties: [mixing_enthalpy]
models: [plain-10, irnet-10]
init: [null, {pack: alloys-magpie, property: size_mismatch}]
resources: {minutes: 30}
"""
UNITS = {"mixing_enthalpy": "eV/atom", "size_mismatch": "%"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("IRNET_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("IRNET_SITE", raising=False)
    place = Place(tmp_path)
    place.path.write_text(BOTH)
    write_pack(place.packs, "alloys-magpie", UNITS)
    return place


@pytest.fixture
def matrix_of(tmp_path):
    """Text -> the matrix that it stands for, with packs in tmp_path/packs."""

    def read(text: str):
        (tmp_path / "mine.yaml").write_text(text)
        return read_matrix(tmp_path / "mine.yaml", tmp_path / "packs")

    return read


def cells(matrix) -> list[tuple]:
    """(pack, property, model, recipe, seed, training rows, index of the origin or None) of each."""
    return [
        (
            s.pack,
            s.property,
            s.model,
            s.recipe,
            s.seed,
            s.train_rows,
            c.origin and matrix.cells.index(c.origin),
        )
        for c in matrix.cells
        for s in [c.spec]
    ]


# -------------------------------------------------------------------------------------- the matrix


def test_origins_are_cells_once_each_before_those_that_start_from_them(matrix_of):
    matrix = matrix_of("""
packs: [jarvis-magpie]
properties: [band_gap, formation_energy]
models: [irnet-10]
seeds: [0, 1]
recipes: [{name: tune, base: onecycle, epochs: 5}]
init:
  - null
  - {pack: oqmd-magpie, property: formation_energy, train_rows: 5000}
resources: [{minutes: 30}, {for: {pack: oqmd-magpie}, minutes: 600}]
""")
    jarvis = ("jarvis-magpie", "band_gap", "irnet-10", "tune")
    energy = ("jarvis-magpie", "formation_energy", "irnet-10", "tune")
    oqmd = ("oqmd-magpie", "formation_energy", "irnet-10", "onecycle")
    assert cells(matrix) == [
        (*jarvis, 0, None, None),
        (*oqmd, 0, 5000, None),
        (*jarvis, 0, None, 1),
        (*energy, 0, None, None),
        (*energy, 0, None, 1),
        (*jarvis, 1, None, None),
        (*oqmd, 1, 5000, None),
        (*jarvis, 1, None, 6),
        (*energy, 1, None, None),
        (*energy, 1, None, 6),
    ]
    started = [cell for cell in matrix.cells if cell.origin]
    assert all(
        cell.spec.start_from == run_id(cell.origin.spec, cell.origin.recipe) for cell in started
    )
    assert len({cell.spec.start_from for cell in started}) == 2  # an origin for each seed
    assert [cell.resources.minutes for cell in matrix.cells[:3]] == [30, 600, 30]
    assert [(pack.name, pack.options) for pack in matrix.packs][1:] == [
        ("oqmd-magpie", ("--source", "oqmd", "--features", "magpie"))
    ]
    assert not matrix.dropped


def test_an_origin_that_is_a_cell_of_the_matrix_anyway_is_that_cell(matrix_of):
    matrix = matrix_of("""
packs: [alloys-magpie]
properties: [mixing_enthalpy, size_mismatch]
models: [irnet-10]
init: [{pack: alloys-magpie, property: size_mismatch}, null]
""")
    alloys = [
        ("alloys-magpie", name, "irnet-10", "onecycle", 0, None)
        for name in ("size_mismatch", "mixing_enthalpy")
    ]
    mismatch, enthalpy = alloys
    assert cells(matrix) == [(*mismatch, None), (*enthalpy, 0), (*enthalpy, None), (*mismatch, 0)]
    assert len(matrix.packs) == 1


def test_the_origins_pack_has_the_split_of_the_pack_that_starts_from_it(matrix_of, tmp_path):
    write_pack(
        tmp_path / "packs",
        "other-magpie",
        {"band_gap": "eV"},
        split={"by": "reduced formula", "seed": 2},
    )
    matrix = matrix_of("""
packs:
  - {name: mine-split1, source: mine.csv, split_seed: 1}
  - {name: mine, source: mine.csv}
  - other-magpie
properties: [band_gap]
models: [irnet-10]
init: [{pack: oqmd-magpie, property: formation_energy}]
""")
    origins = {cell.spec.pack: cell.origin.spec.pack for cell in matrix.cells if cell.origin}
    assert origins == {
        "mine-split1": "oqmd-magpie-split1",
        "mine": "oqmd-magpie",
        "other-magpie": "oqmd-magpie-split2",
    }
    options = {pack.name: pack.options for pack in matrix.packs}
    assert options["oqmd-magpie-split1"] == (
        "--source",
        "oqmd",
        "--features",
        "magpie",
        "--split-seed",
        "1",
    )
    assert options["oqmd-magpie"] == ("--source", "oqmd", "--features", "magpie")
    assert not [note for note in matrix.notes if "split" in note]


def test_over_an_axis_of_splits_each_pack_starts_from_the_origin_of_its_own_split(matrix_of):
    """The matrix's own oqmd-magpie, which has fewer rows, is the origin where only its name is."""
    matrix = matrix_of("""
packs:
  - {name: oqmd-magpie, source: oqmd, rows: 5000, properties: [formation_energy]}
  - {name: mine, source: mine.csv, properties: [band_gap]}
models: [irnet-10]
splits: [random, "element:F+O"]
split_seeds: [0, 1]
init:
  - null
  - {pack: oqmd-magpie, property: formation_energy}
  - {pack: jarvis-magpie, property: formation_energy}
""")
    starts = {(c.spec.pack, c.origin.spec.pack) for c in matrix.cells if c.origin}
    suffixes = ("", "-split1", "-element_O+F", "-element_O+F-split1")
    assert starts == {
        (target + suffix, origin + suffix)
        for target in ("mine", "oqmd-magpie")
        for origin in ("oqmd-magpie", "jarvis-magpie")
        for suffix in suffixes
    }
    options = {pack.name: " ".join(pack.options) for pack in matrix.packs}
    assert len(matrix.packs) == len(options) == 3 * 4
    assert "--rows 5000" in options["oqmd-magpie-element_O+F-split1"]
    assert options["jarvis-magpie-element_O+F-split1"] == (
        "--source jarvis --features magpie --split element:O+F --split-seed 1"
    )
    assert options["jarvis-magpie"] == "--source jarvis --features magpie"
    assert not [note for note in matrix.notes if "split" in note]
    order = [cell.spec for cell in matrix.cells]
    assert all(
        order.index(cell.origin.spec) < order.index(cell.spec)
        for cell in matrix.cells
        if cell.origin
    )


def test_an_origin_that_is_split_otherwise_is_noted(matrix_of):
    matrix = matrix_of("""
packs: [{name: mine, source: mine.csv, split_seed: 1}]
properties: [band_gap]
models: [irnet-10]
init: [{pack: {name: big, source: oqmd, split_seed: 0}, property: formation_energy}]
""")
    (note,) = (note for note in matrix.notes if "split" in note)
    assert note.startswith("packs mine and big have different splits")


def test_an_origin_that_test_rows_have_selected_is_noted(matrix_of):
    matrix = matrix_of("""
packs: [jarvis-magpie]
properties: [band_gap]
models: [irnet-10]
init: [{pack: oqmd-magpie, property: formation_energy, protocol: paper}]
""")
    (note,) = (note for note in matrix.notes if "paper" in note)
    assert note.startswith("init oqmd-magpie/formation_energy has protocol paper")


def test_products_that_cannot_be_are_dropped_with_the_reason(matrix_of, tmp_path):
    write_pack(tmp_path / "packs", "alloys-magpie", UNITS)
    matrix = matrix_of("""
packs: [alloys-magpie]
properties: [mixing_enthalpy]
models: [irnet-10, ridge]
recipes:
  - onecycle
  - paper
  - {name: last, base: onecycle, trained_layers: 2}
  - {name: deep, base: onecycle, trained_layers: 11}
  - grid
seeds: [0, 1]
init:
  - null
  - {pack: alloys-magpie, property: size_mismatch}
  - {pack: alloys-magpie, property: band_gap}
  - {pack: alloys-elements, property: size_mismatch}
""")
    found = {(d.product, d.reason): d.n_cells for d in matrix.dropped}
    of = {product: (reason, n) for (product, reason), n in found.items()}
    assert of["ridge × init alloys-magpie/size_mismatch"] == (
        "ridge has no weights to start with",
        2,
    )
    assert of["irnet-10 × last × init null"][0].startswith(
        "trained_layers of recipe 'last' must be 0 without an init run"
    )
    assert "at most the 10 layers" in of["irnet-10 × deep × init alloys-magpie/size_mismatch"][0]
    reason = of["irnet-10 × paper × init alloys-magpie/size_mismatch"][0]
    assert reason.startswith("features of recipe") and "standard" in reason and "raw" in reason
    assert of["init alloys-magpie × band_gap"] == (
        "the pack has mixing_enthalpy, size_mismatch",
        4,
    )  # onecycle and last
    assert of["alloys-magpie × init alloys-elements/size_mismatch"][1] == 4
    kept = {
        (c.spec.property, c.spec.model, c.spec.recipe, c.origin is not None) for c in matrix.cells
    }
    assert kept == {
        ("mixing_enthalpy", "irnet-10", "onecycle", False),
        ("mixing_enthalpy", "irnet-10", "paper", False),
        ("mixing_enthalpy", "irnet-10", "onecycle", True),
        ("mixing_enthalpy", "irnet-10", "last", True),
        ("size_mismatch", "irnet-10", "onecycle", False),
        ("mixing_enthalpy", "ridge", "grid", False),
    }


OQMD = "pack: oqmd-magpie, property: band_gap"
ALLOYS = "pack: alloys-magpie, property: size_mismatch"
# What is wrong, and words of the message: the key, the value, or the known name that is nearest.
MISTAKES = [
    ("5", "init 5"),
    ("[5]", "init mapping null 5"),
    ("[{}]", "pack init text mapping"),
    ("[{pack: alloys-magpie}]", "property init text"),
    ("[{property: band_gap}]", "pack init text mapping"),
    ("[{pack: {source: a.csv}, property: band_gap}]", "pack init name a.csv"),
    ("[{pack: oqdm-magpie, property: band_gap}]", "source oqdm oqmd"),
    ("[{pack: oqmd-magpie, property: band_gpa}]", "property band_gpa band_gap"),
    (f"[{{{OQMD}, seeds: 1}}]", "key init seeds"),
    (f"[{{{OQMD}, recipe: fast}}]", "recipe fast"),
    (f"[{{{OQMD}, recipe: grid}}]", "recipe grid"),
    (f"[{{{OQMD}, protocol: fair}}]", "protocol fair"),
    (f"[{{{OQMD}, train_rows: many}}]", "train_rows init whole many"),
    (f"[{{{OQMD}, train_rows: 0}}]", "train_rows positive 0"),
    (f"[{{{OQMD}, recipe: !!set {{paper}}}}]", "text number list mapping set"),
    (f"[{{{OQMD}, recipe: 2020-01-01}}]", "recipe 2020-01-01"),
    ("[{pack: {name: alloys-magpie, source: my.csv}, property: band_gap}]", "pack alloys-magpie"),
    (
        f"[{{{ALLOYS}, recipe: {{name: x, base: onecycle}}}}, "
        f"{{{ALLOYS}, recipe: {{name: x, base: onecycle, epochs: 3}}}}]",
        "recipe name x",
    ),
    (
        f"[{{{ALLOYS}, recipe: {{name: x, base: onecycle, trained_layers: 1}}}}]",
        "trained_layers 'x' init",
    ),
]


@pytest.mark.parametrize(("init", "words"), MISTAKES)
def test_a_wrong_init_is_one_sentence_that_names_file_key_and_value(matrix_of, init, words):
    with pytest.raises(UserError) as error:
        matrix_of(BOTH.replace("[null, {pack: alloys-magpie, property: size_mismatch}]", init))
    message = str(error.value)
    assert [word for word in words.split() if word.lower() not in message.lower()] == []
    assert "mine.yaml: " in message and "\n" not in message


# ------------------------------------------------------------------------------- states and sweeps


def named(place: Place) -> dict[str, object]:
    """`scratch-`, `origin-` or `tuned-` and the architecture -> the cell."""
    kinds = {}
    for cell in place.matrix.cells:
        kind = (
            "tuned"
            if cell.origin
            else "origin"
            if cell.spec.property == "size_mismatch"
            else "scratch"
        )
        kinds[f"{kind}-{cell.spec.architecture}"] = cell
    return kinds


def entries(place: Place) -> dict[str, object]:
    found = {entry.name: entry for entry in read_ledger(place.matrix, place.results).cells}
    return {name: found[cell_name(cell)] for name, cell in named(place).items()}


def finish(place: Place, *names: str, **changes) -> None:
    for name in names:
        write_result(place.matrix, named(place)[name], place.results, **changes)


def test_a_cell_whose_origin_is_not_done_says_so(place):
    origin = cell_name(named(place)["origin-plain"])
    assert entries(place)["tuned-plain"].state == "missing"
    assert entries(place)["tuned-plain"].detail == f"its origin {origin} is missing"
    write_json(
        place.results / origin / "error.json",
        {"error": "it hurts", "time": "2026-01-01T00:00:00+00:00"},
    )
    assert entries(place)["tuned-plain"].state == "missing"
    assert entries(place)["tuned-plain"].detail == f"its origin {origin} failed: it hurts"
    assert entries(place)["scratch-plain"].detail == ""
    finish(place, "origin-plain")
    assert (entries(place)["tuned-plain"].state, entries(place)["tuned-plain"].detail) == (
        "missing",
        "",
    )
    options = train_options(entries(place)["tuned-plain"], place.results, None)
    assert options[options.index("--init") + 1] == str(place.results / origin)
    assert "--init" not in train_options(entries(place)["scratch-plain"], place.results, None)


def test_a_cell_is_stale_when_its_origin_is_and_waits_until_that_is_asked_for(place):
    finish(place, *named(place))
    assert {entry.state for entry in entries(place).values()} == {"done"}
    tuned = entries(place)["tuned-plain"].folder / "result.json"
    finish(place, "tuned-plain", origin={"key": "other"}, key="other")
    assert entries(place)["tuned-plain"].state == "stale"
    assert (
        entries(place)["tuned-plain"].detail
        == "its origin then had another recipe, pack or version"
    )
    finish(place, "origin-plain", key="other")
    tuned.unlink()
    assert (
        entries(place)["tuned-plain"].detail
        == f"its origin {cell_name(named(place)['origin-plain'])} is stale"
    )
    ledger = read_ledger(place.matrix, place.results)
    assert ledger.to_do() == []
    assert [entry.cell.spec.property for entry in ledger.to_do(stale=True)] == [
        "size_mismatch",
        "mixing_enthalpy",
    ]


def test_a_result_outlives_its_origin_and_both_their_packs(place):
    finish(place, *named(place))
    (entries(place)["origin-plain"].folder / "result.json").unlink()
    (place.packs / "alloys-magpie.h5").unlink()
    assert entries(place)["tuned-plain"].state == "done"


@pytest.fixture
def stand_in(place, monkeypatch, tmp_path):
    """Replace trainings by commands that leave a prepared result, or by `stand_in[name]`."""
    said = {}

    def train_command(entry, n_ranks, results, pack_dir):
        (name,) = (name for name, cell in named(place).items() if cell == entry.cell)
        prepared = write_result(place.matrix, entry.cell, tmp_path / "prepared")
        return ["sh", "-c", said.get(name, f"cp {prepared} {entry.folder}")]

    monkeypatch.setattr(cell_attempt, "train_command", train_command)
    return said


def test_run_trains_origins_first_and_leaves_out_what_starts_from_one_that_failed(
    place, stand_in, capsys
):
    stand_in["origin-plain"] = "echo it hurts; exit 1"
    assert place.sweep("run") == 1
    shown = capsys.readouterr().out
    origin = cell_name(named(place)["origin-plain"])
    tuned = cell_name(named(place)["tuned-plain"])
    assert f"{tuned} left out: its origin {origin} is not done" in shown
    assert "mine: 4 cells done, 2 failures" in shown
    assert {name: entry.state for name, entry in entries(place).items()} == dict.fromkeys(
        named(place), "done"
    ) | {
        "origin-plain": "failed",
        "tuned-plain": "missing",
    }
    assert entries(place)["tuned-plain"].detail.startswith(
        f"its origin {origin} failed: ended with status 1"
    )
    stand_in.clear()
    assert place.sweep("run") == 0
    assert "mine: 2 cells done, 0 failures" in capsys.readouterr().out


@pytest.fixture
def slurm(place, tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Slurm(folder)


def dependencies(slurm: Slurm) -> list[str]:
    return [
        text.partition("#SBATCH --dependency=")[2].partition("\n")[0] for text in slurm.scripts()
    ]


def test_jobs_wait_for_the_job_of_their_origin_and_for_their_pack(place, slurm):
    """Two from nothing and two origins are one array; each of the others waits for its origin."""
    assert list(named(place)) == [
        "scratch-plain",
        "scratch-irnet",
        "origin-plain",
        "tuned-plain",
        "origin-irnet",
        "tuned-irnet",
    ]
    (place.packs / "alloys-magpie.h5").unlink()
    assert place.sweep("submit") == 0
    assert slurm.names() == ["irnet:pack:alloys-magpie", *["irnet:mine"] * 3, *LAST]
    assert dependencies(slurm) == [
        "",
        "afterok:101",
        "afterok:101:102_2",
        "afterok:101:102_3",
        "afterany:101:102:103:104",
        "afterany:105",
    ]
    assert {entry.state for entry in entries(place).values()} == {"queued"}

    slurm.forget("102_2", "103", **{"102_2": "NODE_FAIL", "103": "CANCELLED by 0"})
    write_pack(place.packs, "alloys-magpie", UNITS)
    found, origin = entries(place), cell_name(named(place)["origin-plain"])
    assert (found["origin-plain"].state, found["tuned-plain"].state) == ("failed", "failed")
    assert (
        found["tuned-plain"].detail
        == f"its origin {origin} failed: job 102_2 NODE_FAIL, without a result"
    )
    assert place.sweep("submit") == 0
    assert dependencies(slurm)[6:8] == ["", "afterok:107"]


def test_a_cell_waits_for_an_origin_that_an_earlier_submission_trains(place, slurm):
    place.sweep("submit")
    assert dependencies(slurm)[1:3] == ["afterok:101_2", "afterok:101_3"]
    slurm.forget("102", **{"102": "CANCELLED by 0"})
    assert place.sweep("submit") == 0
    assert slurm.names()[5:] == ["irnet:mine", *LAST]
    assert dependencies(slurm)[5] == "afterok:101_2"


def test_what_starts_from_a_finished_origin_waits_for_nothing(place, slurm):
    finish(place, "origin-plain", "origin-irnet", "scratch-plain", "scratch-irnet")
    place.sweep("submit")
    assert slurm.names() == ["irnet:mine", *LAST]  # one array of two
    assert dependencies(slurm)[0] == ""


REAL = """
packs: [alloys-small]
properties: [mixing_enthalpy]
models: [32BARx2-1]
recipes: [{name: tiny, base: onecycle, precision: fp32, batch: 64, norm_group: 32, epochs: 2},
          {name: last, base: onecycle, precision: fp32, batch: 64, norm_group: 32, epochs: 2,
           trained_layers: 1}]
init:
  - null
  - pack: alloys-small
    property: size_mismatch
    recipe: {name: big, base: onecycle, batch: 64, norm_group: 32, epochs: 3}
resources: {minutes: 1}
"""


@pytest.mark.slow
def test_a_sweep_pretrains_and_then_fine_tunes(tmp_path, alloys_pack):
    """One origin, a cell from nothing and two from the origin; `last` from nothing is dropped."""
    (tmp_path / "real.yaml").write_text(REAL)
    places = ["--results", str(tmp_path / "results"), "--pack-dir", str(alloys_pack.parent)]
    done = subprocess.run(
        [sys.executable, "-m", "irnet_hpc.sweep", "run", tmp_path / "real.yaml", *places],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "real: 4 cells done, 0 failures" in done.stdout
    matrix = read_matrix(tmp_path / "real.yaml", alloys_pack.parent)
    ledger = read_ledger(matrix, tmp_path / "results")
    assert [entry.state for entry in ledger.cells] == ["done"] * 4
    assert [dropped.product for dropped in matrix.dropped] == [
        f"{matrix.cells[0].spec.model} × last × init null"
    ]
    (origin,) = (entry for entry in ledger.cells if entry.cell.spec.property == "size_mismatch")
    for entry in ledger.cells:
        if entry.origin:
            assert entry.result.origin["folder"] == str(origin.folder)
            assert (entry.result.origin["key"], entry.result.origin["n_shared_test"]) == (
                origin.result.key,
                0,
            )
    asked = [sys.executable, "-m", "irnet_hpc.aggregate", str(tmp_path / "results"), "--all"]
    shown = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert "started from size_mismatch big" in shown.stdout, shown.stdout + shown.stderr
    assert "stale" not in shown.stdout


# ------------------------------------------------------------------- the networks of the package

SHIPPED = """
packs: [mine-magpie+elements, other-magpie, folds-magpie+elements]
properties: [band_gap]
models: [irnet-17, irnet-10]
recipes: [{name: tune, base: onecycle, epochs: 5}]
init: [null, "pretrained:oqmd"]
resources: {minutes: 30}
"""


@pytest.fixture
def shipped(matrix_of, tmp_path):
    folds = {"by": "folds", "n_folds": 5, "seed": 0}
    for name, features, split in (
        ("mine-magpie+elements", "magpie+elements", None),
        ("other-magpie", "magpie", None),
        ("folds-magpie+elements", "magpie+elements", folds),
    ):
        more = {"split": split} if split else {}
        write_pack(tmp_path / "packs", name, {"band_gap": "eV"}, features=features, **more)
    return matrix_of(SHIPPED)


def test_cells_start_from_a_network_of_the_package_without_a_cell_for_it(shipped):
    result = shipped_result("oqmd")
    started = [cell for cell in shipped.cells if cell.shipped]
    assert [cell.spec.pack for cell in started] == ["mine-magpie+elements", "folds-magpie+elements"]
    assert all(cell.origin is None and cell.spec.model == "irnet-17" for cell in started)
    origin = read_spec(result.spec)
    assert {cell.spec.start_from for cell in started} == {
        run_id(origin, read_recipe(origin, result.recipe))
    }
    assert len(shipped.cells) == 3 * 2 + 2
    assert sum(dropped.n_cells for dropped in shipped.dropped) == 4
    assert len([note for note in shipped.notes if "pretrained:oqmd" in note]) == 1


def test_such_a_cell_is_trained_with_init_and_is_stale_with_another_network(
    shipped, tmp_path, monkeypatch
):
    monkeypatch.setenv("IRNET_STATE", str(tmp_path / "state"))
    cell, results = next(cell for cell in shipped.cells if cell.shipped), tmp_path / "results"

    def entry():
        (found,) = [one for one in read_ledger(shipped, results).cells if one.cell == cell]
        return found

    options = train_options(entry(), results, None)
    assert options[options.index("--init") + 1] == "pretrained:oqmd"
    (identity,) = [pack.identity for pack in shipped.packs if pack.name == cell.spec.pack]
    for origin_key, state in ((shipped_result("oqmd").key, "done"), ("0" * 64, "stale")):
        key = run_key(cell.spec, cell.recipe, identity, origin_key)
        write_result(shipped, cell, results, key=key, origin={"key": origin_key})
        assert entry().state == state


def test_an_entry_of_init_that_is_other_text_is_refused(matrix_of):
    for text in ("oqmd", "pretrained:oqdm"):
        with pytest.raises(UserError):
            matrix_of(SHIPPED.replace("pretrained:oqmd", text))
