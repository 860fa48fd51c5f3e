"""Packing from Python: the pack of the command, bit for bit, from paths, names and DataFrames."""

import logging
import lzma
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from irnet_hpc import UserError, load_pack, pack_table
from irnet_hpc.pack.store import verify

FORMULAS = [f"{metal}{n}O" for metal in ("Fe", "Co", "Ni", "Cu") for n in range(1, 31)]


@pytest.fixture
def frame() -> pd.DataFrame:
    """Return a table of 120 oxides with a number that is not reported and a feature of its own."""
    random = np.random.default_rng(0)
    gap = random.gamma(2, size=len(FORMULAS))
    gap[3] = np.nan
    columns = {
        "formula": FORMULAS,
        "band_gap": gap,
        "hardness": random.normal(size=len(FORMULAS)),
        "pressure": random.uniform(0.1, 10, len(FORMULAS)),
    }
    return pd.DataFrame(columns)


def test_a_table_gives_the_pack_of_the_command_bit_for_bit(frame, pack_command, tmp_path):
    """A str, a Path, a compressed file and a DataFrame; the files may differ in their date only."""
    table = tmp_path / "table.csv"
    frame.to_csv(table, index=False)
    with lzma.open(tmp_path / "table.csv.xz", "wb") as file:
        file.write(table.read_bytes())
    options = "--features elements+columns --unit hardness=GPa --split-seed 3 --workers 1"
    done = pack_command("--source", "table.csv", "--pack-dir", "by-command", *options.split())
    assert done.returncode == 0, done.stderr
    path = tmp_path / "by-command/table-elements+columns-split3.h5"
    made = {}
    for kind, source in {
        "str": str(table),
        "path": table,
        "xz": tmp_path / "table.csv.xz",
        "frame": frame,
    }.items():
        with pack_table(
            source,
            features="elements+columns",
            units={"hardness": "GPa"},
            split_seed=3,
            workers=1,
            pack_dir=tmp_path / kind,
        ) as pack:
            assert (pack.name, verify(pack.path)) == (path.stem, verify(path))
            with load_pack(path) as expected:
                assert pack.identity == expected.identity
                assert pack.attrs.keys() == expected.attrs.keys()
                described = {name for name in pack.attrs if name != "created"}
                assert all(pack.attrs[name] == expected.attrs[name] for name in described)
            made[kind] = pack.path.with_name(f"{path.stem}.rejected.csv").read_text()
    assert set(made.values()) == {path.with_name(f"{path.stem}.rejected.csv").read_text()}


def test_the_name_of_a_source_gives_the_pack_of_the_command(alloys_pack, tmp_path):
    options = {"features": "elements", "rows": 600, "workers": 1}
    with pack_table("alloys", pack_dir=str(tmp_path), **options) as pack:
        assert pack.path == tmp_path / "alloys-elements-n600.h5"
        assert verify(pack.path) == verify(alloys_pack)


def test_packing_again_opens_the_pack_and_another_table_needs_another_name(frame, tmp_path):
    options = {"features": "elements", "pack_dir": tmp_path, "workers": 1}
    with pack_table(frame, **options) as pack:
        before = pack.path.stat().st_mtime_ns
    with pack_table(frame, **options) as pack:
        assert pack.path.stat().st_mtime_ns == before
    with pytest.raises(UserError):
        pack_table(frame.head(50), **options)
    with pack_table(frame.head(50), name="fewer", **options) as pack:
        assert (pack.name, pack.attrs["n_read"]) == ("fewer", 50)
    with pack_table(frame.head(50), overwrite=True, **options) as pack:
        assert pack.attrs["n_read"] == 50


def test_whole_numbers_of_numpy_make_the_pack_that_ints_make(frame, tmp_path):
    options = {"features": "elements", "workers": 1}
    with (
        pack_table(frame, rows=50, split_seed=1, pack_dir=tmp_path / "a", **options) as ours,
        pack_table(
            frame, rows=np.int64(50), split_seed=np.uint8(1), pack_dir=tmp_path / "b", **options
        ) as of_numpy,
    ):
        assert of_numpy.name == ours.name
        assert of_numpy.identity == ours.identity


def test_a_mistake_is_a_user_error(frame, tmp_path):
    for table, options in (
        (frame.drop(columns="formula"), {}),
        (frame, {"features": "magpy"}),
        (frame, {"properties": ["density"]}),
        (frame, {"split": "element:Xe"}),
        (frame, {"name": "../up"}),
        (frame, {"workers": 0}),
        (3, {}),
        (frame["formula"], {}),
        (frame, {"units": "GPa"}),
        (frame, {"rows": 50.0}),
        (frame, {"split_seed": 1.0}),  # it had made another split than 1
        (frame, {"split_seed": True}),
        (frame, {"features": ["elements"]}),
        (frame, {"units": pd.Series({"hardness": "GPa"})}),
        (frame, {"properties": 5}),
        (frame, {"properties": [5]}),
        (frame, {"units": {"hardness": 5}}),
        (frame, {"split": None}),
        (frame, {"name": 5}),
        (frame, {"workers": 1.5}),
        (frame, {"limits": [("band_gap", (0, 5))]}),
        (frame, {"limits": {"band_gap": 5}}),
        (frame, {"limits": {"band_gap": (0,)}}),
        (frame, {"limits": {"band_gap": (0, None)}}),
        (frame, {"limits": {"band_gap": "05"}}),
        (tmp_path / "nothing.csv", {}),
    ):
        with pytest.raises(UserError):
            pack_table(table, pack_dir=tmp_path, **{"features": "elements"} | options)
    assert not list(tmp_path.glob("*.h5"))


def test_nothing_is_printed(frame, tmp_path, capfd, monkeypatch):
    # Commands that ran in this process have attached one that prints.
    monkeypatch.setattr(logging.getLogger("irnet_hpc"), "handlers", [])
    pack_table(frame, features="elements", pack_dir=tmp_path, workers=1).close()
    assert capfd.readouterr().out == ""


def test_a_pack_becomes_a_frame_of_its_rows(alloys_pack):
    with load_pack("alloys-small", alloys_pack.parent) as pack:
        everything = pack.to_frame()
        assert list(everything.columns) == [
            *("formula", "material_id", "part"),
            *pack.units,
            *pack.feature_labels,
        ]
        assert everything["part"].value_counts().to_dict() == {
            "train": pack.n_train,
            "val": pack.n_val,
            "test": pack.n_test,
        }
        assert everything.attrs["units"] == pack.units
        np.testing.assert_array_equal(
            everything[pack.feature_labels].to_numpy(), pack.x(slice(0, pack.n_rows))
        )
        for part in ("train", "val", "test"):
            frame, rows = pack.to_frame(part, features=False), pack.rows(part)
            assert list(frame.columns) == list(everything.columns)[: 3 + len(pack.units)]
            assert (frame["part"] == part).all()
            assert frame["formula"].tolist() == pack.formulas(rows)
            assert frame["material_id"].tolist() == pack.material_ids(rows)
            np.testing.assert_array_equal(frame["mixing_enthalpy"], pack.y("mixing_enthalpy", rows))
            assert frame.index.tolist() == list(range(rows.start, rows.stop))
        with pytest.raises(UserError):
            pack.to_frame("dev")


def test_a_pack_is_loaded_by_path_or_by_name(alloys_pack, monkeypatch):
    monkeypatch.setenv("IRNET_PACKS", str(alloys_pack.parent))
    for name in (alloys_pack, str(alloys_pack), "alloys-small"):
        with load_pack(name) as pack:
            assert Path(pack.path) == alloys_pack
    with pytest.raises(UserError):
        load_pack("nothing")
