"""The command `python -m irnet_hpc.pack`, run as a user runs it: what it makes, what it counts, how it refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest

from irnet_hpc.data.formulas import parse_formula, reduced_formula
from irnet_hpc.data.splits import ROLES, role_of
from irnet_hpc.errors import UserError
from irnet_hpc.features.sets import ELEMENTS
from irnet_hpc.pack.store import open_pack, verify

ROOT = Path(__file__).parents[2]

TABLE = """\
formula,formation_energy,band_gap
Fe2O3,-1.5,2.1
Fe4O6,-1.7,
NaN,,0.5
,-1,1
Xx2O3,-1,1
Fe-2O3,-1,1
D2O,-1,1
HeO,-1,1
MgO,,
Al,0,0
TiO2,-3,3
ZnO,-1.8,3.3
GaAs,-0.4,1.4
SiC,-0.3,2.4
CaO,7,
"""


def test_alloys_pack_is_what_its_parts_say(alloys_pack):
    with open_pack(alloys_pack) as pack:
        everything = slice(0, pack.n_rows)
        assert (pack.n_rows, pack.n_features) == (600, 86)
        assert pack.n_train + pack.n_val + pack.n_test == 600
        assert pack.units == {"mixing_enthalpy": "eV/atom", "size_mismatch": "%"}
        assert pack.feature_labels == list(ELEMENTS)
        np.testing.assert_allclose(pack.x(everything).sum(1), 1, atol=1e-6)
        for split in ROLES:
            for formula in pack.formulas(pack.rows(split)):
                assert role_of(reduced_formula(parse_formula(formula))) == split
        # The row that comes first is not the row that was made first: the order is random, but fixed.
        numbers = [int(name.removeprefix("alloys-")) for name in pack.material_ids(everything)]
        assert sorted(numbers) == list(range(1, 601))
        assert numbers[: pack.n_train] != sorted(numbers[: pack.n_train])
    verify(alloys_pack)


def test_every_row_and_every_value_of_a_table_is_accounted_for(pack_command, tmp_path):
    (tmp_path / "mine.csv").write_text(TABLE)
    done = pack_command("--source", "mine.csv", "--features", "elements", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # the progress bar is for terminals
    with (tmp_path / "packs/mine-elements.rejected.csv").open() as file:
        rejected = [
            (int(row["line"]), row["formula"], row["reason"]) for row in csv.DictReader(file)
        ]
    assert rejected == [
        (2, "Fe2O3", "duplicate formula"),
        (5, "", "formula is empty"),
        (6, "Xx2O3", "formula not readable"),
        (7, "Fe-2O3", "negative amount"),
        (8, "D2O", "isotope, not an element"),
        (9, "HeO", "element unknown to feature set elements"),
        (10, "MgO", "no property reported"),
    ]
    with open_pack(tmp_path / "packs/mine-elements.h5") as pack:
        assert pack.n_rows + len(rejected) == pack.attrs["n_read"] == 15
        everything = slice(0, pack.n_rows)
        y = dict(
            zip(pack.formulas(everything), pack.y("formation_energy", everything), strict=True)
        )
        assert y["Fe4O6"] == -1.7
        assert np.isnan(y["NaN"])
        assert y["CaO"] == 7  # a file of the user's own is not filtered
        assert "Al" in y
        split = {f: s for s in ROLES for f in pack.formulas(pack.rows(s))}
        assert all(
            role_of(reduced_formula(parse_formula(formula))) == side
            for formula, side in split.items()
        )
    for line in ("        15 rows read", "        -1 duplicate formula", "         8 packed: "):
        assert line in done.stdout
    assert (
        "next: python -m irnet_hpc.train --pack mine-elements --property formation_energy"
        in done.stdout
    )


def test_a_database_is_filtered_by_default_and_its_pure_elements_go(pack_command, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/oqmd.csv").write_text(
        TABLE + "".join(f"FeO{i},{i / 1000},0\n" for i in range(2, 60))
    )
    assert pack_command("--source", "oqmd", "--features", "elements").returncode == 0
    done = pack_command("--source", "oqmd", "--features", "elements", "--no-filters")
    with open_pack(tmp_path / "packs/oqmd-elements.h5") as pack:
        everything = slice(0, pack.n_rows)
        y = dict(
            zip(pack.formulas(everything), pack.y("formation_energy", everything), strict=True)
        )
        assert np.isnan(y["CaO"])  # 7 eV/atom
        assert "Al" not in y
        assert np.isnan(y["TiO2"])  # -3: the values that the limits leave have sd 0.50 about -0.11
        assert not np.isnan(y["ZnO"])
        assert pack.attrs["rejected"]["pure element"] == 1
        assert pack.attrs["filtered"]["formation_energy"] == {
            "-20 < formation_energy < 5 eV/atom": 1,
            "|formation_energy - mean| <= 5 sd": 1,
        }
        assert pack.identity["filters"] == [
            "-20 < formation_energy < 5 eV/atom",
            "|formation_energy - mean| <= 5 sd",
        ]
    with open_pack(tmp_path / "packs/oqmd-elements-nofilters.h5") as pack:
        assert done.returncode == 0
        everything = slice(0, pack.n_rows)
        y = dict(
            zip(pack.formulas(everything), pack.y("formation_energy", everything), strict=True)
        )
        assert (y["CaO"], y["TiO2"]) == (7, -3)
        assert pack.attrs["filtered"] == {} and pack.identity["filters"] == []


def test_limits_act_before_the_lowest_energy_of_a_formula_is_taken_and_deviations_after(
    pack_command, tmp_path
):
    (tmp_path / "data").mkdir()
    rows = [
        "FeO,-25",
        "Fe2O2,-1.4",
        *["Fe3O3,4.9"] * 9,
        *(f"MgO{i},{i / 1000}" for i in range(2, 30)),
        "CaO,-4",
    ]
    (tmp_path / "data/oqmd.csv").write_text(
        "formula,formation_energy\n" + "".join(f"{row}\n" for row in rows)
    )
    assert (
        pack_command("--source", "oqmd", "--features", "elements", "--workers", "1").returncode == 0
    )
    with open_pack(tmp_path / "packs/oqmd-elements.h5") as pack:
        everything = slice(0, pack.n_rows)
        y = dict(
            zip(pack.formulas(everything), pack.y("formation_energy", everything), strict=True)
        )
        assert y["Fe2O2"] == -1.4
        # 30 values have a mean of -0.166 and an sd of 0.756; with FeO's other nine these were 1.003 and 2.235
        assert np.isnan(y["CaO"])
        assert (pack.n_rows, pack.attrs["rejected"]) == (30, {"duplicate formula": 10})
        assert list(pack.attrs["filtered"]["formation_energy"].values()) == [1, 1]
        assert pack.identity["rules"] == 2


def test_features_of_the_users_own_with_a_split_of_their_own(pack_command, tmp_path):
    rows = "".join(
        f"s{i},Fe{i % 3 + 1}C,{('train', 'val', 'test')[i % 3 if i < 9 else 0]},{300 + i},{i / 7},{100 + i}\n"
        for i in range(12)
    )
    (tmp_path / "steels.csv").write_text(
        "material_id,formula,split,temperature,carbon,hardness\n" + rows + "s12,Fe,test,,1,5\n"
    )
    arguments = [
        "--source",
        "steels.csv",
        "--features",
        "columns",
        "--property",
        "hardness",
        "--unit",
        "hardness=HV",
    ]
    done = pack_command(*arguments, "--name", "steels")
    assert done.returncode == 0, done.stderr
    with open_pack(tmp_path / "packs/steels.h5") as pack:
        # Formulas repeat, as they may where features tell more than the formula; nothing is a duplicate.
        assert (pack.n_train, pack.n_val, pack.n_test) == (6, 3, 3)
        assert pack.feature_labels == ["temperature", "carbon"]
        assert pack.units == {"hardness": "HV"}
        hardness, temperature = pack.y("hardness", slice(0, 12)), pack.x(slice(0, 12))[:, 0]
        np.testing.assert_array_equal(hardness - temperature, np.full(12, -200.0))
        assert pack.attrs["rejected"] == {"feature column empty": 1}
        assert pack.identity["split"] == {"by": "column"}
    assert "warning: 2 formulas are on more than one side of the table's own split" in done.stdout
    refused = pack_command(*arguments, "--split-seed", "1", "--name", "other")
    assert refused.returncode == 2 and "column named split" in refused.stderr


def test_packs_of_two_sources_agree_on_who_is_test(alloys_pack, pack_command, tmp_path):
    with open_pack(alloys_pack) as pack:
        split = {formula: side for side in ROLES for formula in pack.formulas(pack.rows(side))}
    other = list(split)[::5]
    backwards = {  # the same alloys, elements in the opposite order and twice the amounts
        "".join(
            f"{symbol}{2 * amount:g}" for symbol, amount in reversed(parse_formula(formula).items())
        ): formula
        for formula in other
    }
    (tmp_path / "lab.csv").write_text(
        "formula,density\n" + "".join(f"{formula},1\n" for formula in backwards)
    )
    assert pack_command("--source", "lab.csv", "--features", "elements").returncode == 0
    with open_pack(tmp_path / "packs/lab-elements.h5") as pack:
        found = {formula: side for side in ROLES for formula in pack.formulas(pack.rows(side))}
    assert found == {spelling: split[formula] for spelling, formula in backwards.items()}


def test_one_and_two_workers_give_the_same_content(pack_command, tmp_path):
    for workers in (1, 2):
        arguments = [
            "--source",
            "alloys",
            "--rows",
            "1100",
            "--workers",
            workers,
            "--name",
            f"by-{workers}",
        ]
        assert pack_command(*arguments, "--features", "magpie").returncode == 0
    assert verify(tmp_path / "packs/by-1.h5") == verify(tmp_path / "packs/by-2.h5")


def test_packing_again_does_nothing_and_another_pack_of_that_name_is_refused(
    pack_command, tmp_path
):
    (tmp_path / "mine.csv").write_text(TABLE)
    arguments = ["--source", "mine.csv", "--features", "elements", "--name", "same", "--workers", 1]
    assert pack_command(*arguments).returncode == 0
    before = (tmp_path / "packs/same.h5").stat()
    again = pack_command(*arguments)
    assert again.returncode == 0
    assert "already packed: packs/same.h5" in again.stdout
    assert (tmp_path / "packs/same.h5").stat().st_mtime_ns == before.st_mtime_ns
    (tmp_path / "mine.csv").write_text(TABLE + "KCl,-2,5\n")
    other = pack_command(*arguments)
    assert other.returncode == 2
    assert "its source_sha256, n_source_rows differ" in other.stderr
    assert pack_command(*arguments, "--overwrite").returncode == 0
    with open_pack(tmp_path / "packs/same.h5") as pack:
        assert pack.attrs["n_read"] == 16


def test_what_is_not_default_is_in_the_name(pack_command, tmp_path):
    arguments = "--source mine.csv --rows 6 --features elements --split-seed 3 --no-filters --property band_gap"
    (tmp_path / "mine.csv").write_text(TABLE)
    assert pack_command(*arguments.split()).returncode == 0
    assert (tmp_path / "packs/mine-elements-band_gap-n6-split3-nofilters.h5").exists()


def test_info_and_verify(pack_command, alloys_pack, tmp_path):
    shown = pack_command("--info", alloys_pack)
    assert shown.returncode == 0
    assert "features  elements, 86 columns" in shown.stdout
    assert "600 packed: " in shown.stdout
    told = json.loads(pack_command("--info", alloys_pack, "--json").stdout)
    assert (told["n_rows"], told["n_features"], sum(told["rows"].values())) == (600, 86, 600)
    assert told["properties"]["size_mismatch"] == {"unit": "%", "reported": told["rows"]}
    assert told["identity"]["source"] == "alloys"
    assert pack_command("--list", "--json").returncode == 2
    checked = pack_command("--verify", "alloys-small", "--pack-dir", alloys_pack.parent)
    assert checked.stdout == f"{alloys_pack} is sound: {verify(alloys_pack)}\n"
    with h5py.File(alloys_pack) as file:
        offset = file["x"].id.get_chunk_info(0).byte_offset
    damaged = bytearray(alloys_pack.read_bytes())
    damaged[offset + 1000] ^= 4
    (tmp_path / "damaged.h5").write_bytes(damaged)
    refused = pack_command("--verify", "damaged.h5")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: damaged.h5 cannot be read as a pack")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            "--source oqdm",
            "unknown source 'oqdm' (did you mean 'oqmd'?); known: a path to a table, aflow, alloys, jarvis",
        ),
        (
            "--source alloys --features magpy",
            "unknown feature set 'magpy' (did you mean 'magpie'?); known: asph, classes, columns,",
        ),
        (
            "--source alloys --property band_gap",
            "unknown property of alloys 'band_gap'; known: mixing_enthalpy, size_mismatch",
        ),
        (
            "--source alloys --rows 9 --features columns",
            "feature set 'columns' is the table's own numeric columns, but it has none",
        ),
        ("--source alloys --rows 0", "rows must be at least 1, got 0"),
        ("--source alloys --workers 0", "workers must be at least 1, got 0"),
        ("--source alloys --split-seed -1", "split seed must not be negative, got -1"),
        ("--source alloys --name ../up", "a pack's name must be letters, digits and _.+=-"),
        ("--source alloys --unit eV", "--unit must be NAME=UNIT, got 'eV'"),
        (
            "--source oqmd",
            "no raw table of oqmd in data/: looked for oqmd.csv, oqmd.csv.gz, oqmd.csv.xz, oqmd.jsonl",
        ),
        ("--source nothing.csv", "there is no raw table nothing.csv"),
        (
            "--source all-bad.csv",
            "not one formula can be read; the first is 'Xx2', line 2: formula not readable",
        ),
        (
            "--source no-formula.csv",
            "no-formula.csv must have a column named formula; its columns: name, band_gap",
        ),
        (
            "--source no-values.csv --property band_gap",
            "property 'band_gap' has no values in no-values.csv",
        ),
        (
            "--source helium.csv --features elements",
            "not one of 2 rows is left to pack: 2 element unknown to feature set",
        ),
        ("--info no-values.csv", "there is no pack packs/no-values.csv.h5"),
        (
            "--verify foreign.h5",
            "foreign.h5 cannot be read as a pack, it is damaged, cut short or not HDF5",
        ),
        (
            "--verify short.h5",
            "short.h5 cannot be read as a pack, it is damaged, cut short or not HDF5",
        ),
    ],
)
def test_a_mistake_is_one_sentence_status_2_and_nothing_left_behind(
    arguments, sentence, pack_command, alloys_pack, tmp_path
):
    (tmp_path / "all-bad.csv").write_text("formula,band_gap\nXx2,1\nYy,2\n")
    (tmp_path / "no-formula.csv").write_text("name,band_gap\nFeO,1\n")
    (tmp_path / "no-values.csv").write_text("formula,band_gap,density\nFeO,,5\n")
    (tmp_path / "plain.csv").write_text("formula,band_gap\nFeO,1\n")
    (tmp_path / "helium.csv").write_text("formula,band_gap\nHe,1\nHeO,2\n")
    (tmp_path / "foreign.h5").write_text("not HDF5 at all")
    (tmp_path / "short.h5").write_bytes(alloys_pack.read_bytes()[:5000])
    before = sorted(tmp_path.rglob("*"))
    done = pack_command(*arguments.split())
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}")
    assert done.stderr.count("\n") == 1
    left = [
        path
        for path in sorted(tmp_path.rglob("*"))
        if path not in before and path != tmp_path / "packs"
    ]
    assert left == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_pack_leaves_nothing_that_opens_and_no_process(how, tmp_path):
    command = [
        sys.executable,
        "-m",
        "irnet_hpc.pack",
        "--source",
        "alloys",
        "--workers",
        "2",
        "--pack-dir",
        str(tmp_path),
    ]
    running = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(
        lambda: (
            running.poll() is not None
            or (list(tmp_path.iterdir()) and len(psutil.Process(running.pid).children()) >= 2)
        )
    )
    workers = psutil.Process(running.pid).children()
    os.kill(running.pid, how)
    assert running.wait(timeout=600) == (-9 if how == signal.SIGKILL else 143)
    assert not (tmp_path / "alloys-magpie.h5").exists()
    for left in tmp_path.iterdir():  # the blocks that are finished stay in any case
        assert how == signal.SIGKILL or left.name == ".alloys-magpie.parts"
        with pytest.raises(UserError):
            open_pack(left)
    wait_for(
        lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers)
    )


def test_a_disk_without_room_is_one_sentence_and_nothing_is_left(tmp_path):
    (tmp_path / "mine.csv").write_text(TABLE)
    # Files may not exceed 100 blocks of 1024 bytes: what a full disk or a quota does, for one process.
    command = (
        f"ulimit -f 100; {sys.executable} -m irnet_hpc.pack --source mine.csv --features elements"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: packs has no room for a pack of 1 MiB: File too large\n"
    assert list((tmp_path / "packs").iterdir()) == []
    # The last to need room is the list of rejected rows, here of 5 MB; the pack itself takes 1.
    (tmp_path / "mine.csv").write_text(
        TABLE + "".join(f"{'Xx' * 490},{row},\n" for row in range(5000))
    )
    command = command.replace("100;", "3000;")
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: packs/mine-elements.rejected.csv: File too large\n",
    )
    assert [path.name for path in (tmp_path / "packs").iterdir()] == [".mine-elements.parts"]


def wait_for(condition, limit_s: float = 600) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_help_is_instant_and_imports_neither_torch_nor_matminer():
    program = "import sys, irnet_hpc.pack; print([m for m in ('torch', 'matminer', 'pymatgen', 'pandas') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


# table -> how its rows are described, and how many there are
REAL = {
    "oqmd.csv.xz": ("elements", 319_061),
    "mp.csv.xz": ("elements", 75_917),
    "jarvis.csv.xz": ("magpie", 24_092),
    "aflow.csv.xz": ("magpie+elements", 26_913),
    "expt_gap.csv.xz": ("magpie", 4_604),
    "mp_structures.jsonl.xz": ("magpie+structure", 8_779),
}


@pytest.mark.slow
@pytest.mark.parametrize("table", REAL)
def test_every_row_of_a_real_table_is_accounted_for(table, pack_command, tmp_path):
    folder = os.environ.get("IRNET_DATA")
    if not folder or not Path(folder, table).exists():
        pytest.skip(f"$IRNET_DATA has no {table}")
    names, n_rows = REAL[table]
    source = table.partition(".")[0]
    of_a_database = source in ("oqmd", "mp", "jarvis", "aflow")
    given = (
        ("--source", source, "--data-dir", folder)
        if of_a_database
        else ("--source", Path(folder, table))
    )
    done = pack_command(*given, "--features", names, "--name", "real")
    assert done.returncode == 0, done.stderr
    with open_pack(tmp_path / "packs/real.h5") as pack:
        assert pack.attrs["n_read"] == n_rows
        assert pack.n_rows + sum(pack.attrs["rejected"].values()) == n_rows
        assert pack.n_rows > 0.8 * n_rows
        for split, share in zip(ROLES, (0.8, 0.1, 0.1), strict=True):
            assert (pack.rows(split).stop - pack.rows(split).start) / pack.n_rows == pytest.approx(
                share, abs=0.02
            )
        if "structure" in names:
            assert (pack.n_rows, pack.n_features) == (n_rows, 271)
