"""The command `python -m irnet_hpc.pack`: what it prints, counts and refuses."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from irnet_hpc.data.formulas import parse_formula, reduced_formula
from irnet_hpc.data.splits import ROLES, role_of
from irnet_hpc.pack.store import open_pack, verify
from tests.pack.builders import (
    ROOT,
    TABLE,
)


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
    ("arguments", "named"),
    [
        ("--source oqdm", "'oqmd'"),
        ("--source alloys --features magpy", "'magpie'"),
        ("--source alloys --property band_gap", "mixing_enthalpy, size_mismatch"),
        ("--source alloys --rows 9 --features columns", "'columns'"),
        ("--source alloys --rows 0", "rows"),
        ("--source alloys --workers 0", "workers"),
        ("--source alloys --split-seed -1", "-1"),
        ("--source alloys --name ../up", "'../up'"),
        ("--source alloys --unit eV", "NAME=UNIT"),
        ("--source oqmd", "oqmd.csv, oqmd.csv.gz, oqmd.csv.xz, oqmd.jsonl"),
        ("--source nothing.csv", "nothing.csv"),
        ("--source all-bad.csv", "'Xx2'"),
        ("--source no-formula.csv", "name, band_gap"),
        ("--source no-values.csv --property band_gap", "'band_gap'"),
        ("--source helium.csv --features elements", "2 element unknown to feature set elements"),
        ("--info no-values.csv", "packs/no-values.csv.h5"),
        ("--verify foreign.h5", "foreign.h5 cannot be read as a pack"),
        ("--verify short.h5", "short.h5 cannot be read as a pack"),
    ],
)
def test_a_mistake_is_one_sentence_status_2_and_nothing_left_behind(
    arguments, named, pack_command, alloys_pack, tmp_path
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
    assert done.stderr.startswith("error: ") and named in done.stderr
    assert done.stderr.count("\n") == 1
    left = [
        path
        for path in sorted(tmp_path.rglob("*"))
        if path not in before and path != tmp_path / "packs"
    ]
    assert left == []


def test_help_is_instant_and_imports_neither_torch_nor_matminer():
    slow = ("torch", "matminer", "pymatgen", "pandas")
    program = (
        f"import sys, irnet_hpc.pack.cli; print([name for name in {slow} if name in sys.modules])"
    )
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
