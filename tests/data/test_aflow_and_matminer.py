"""AFLOW's pages and matminer's datasets, as their services give them, down to the pack; and what --probe and --list say."""

import csv
import gzip
import hashlib
import json
import lzma

import pandas as pd
import pytest
from matminer.utils.io import store_dataframe_as_json
from pymatgen.core import Composition, Lattice, Species, Structure

from irnet_hpc.data.download import aflow, http, matminer, matminer_columns
from irnet_hpc.data.download.obtain import ensure, fetch
from irnet_hpc.data.download.probe import probe_source
from irnet_hpc.data.download.registry import DOWNLOADS
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.raw_table import read_about
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from irnet_hpc.files import NAME
from irnet_hpc.pack.pipeline import PackOptions, pack_source
from irnet_hpc.pack.store import open_pack
from tests.builders import load_table
from tests.data.http_server import CSCL, FAST, Aflux, Answer, Files, Oqmd, pages, some_rows

# The first is an entry that AFLOW gave to the authors of the client `aflow`, in their tests; numbers are text there.
ENTRIES = [
    {
        "auid": "aflow:db1f17a6f945c29b",
        "compound": "Be1O1",
        "aurl": "aflowlib.duke.edu:AFLOWDATA/ICSD_WEB/FCC/Be1O1_ICSD_163467",
        "Egap": "6.8531",
        "enthalpy_formation_atom": "-2.97",
        "energy_atom": -7.1,
        "volume_cell": 14.2,
        "density": None,
        "ael_bulk_modulus_vrh": "208.3",
        "ael_shear_modulus_vrh": "",
    },
    *(
        {
            "auid": f"aflow:{n:016x}",
            "compound": f"{metal}1O1",
            "Egap": n,
            "enthalpy_formation_atom": -n / 10,
        }
        for n, metal in enumerate(("Mg", "Ca", "Sr", "Ba", "Zn", "Cd"), start=1)
    ),
]


def in_pages_of(monkeypatch: pytest.MonkeyPatch, n_rows: int) -> None:
    small = aflow.ENTRIES._replace(n_rows=n_rows)
    monkeypatch.setitem(DOWNLOADS, "aflow", DOWNLOADS["aflow"]._replace(service=small))


def read(table) -> list[dict[str, str]]:
    with lzma.open(table, "rt", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("named", "n_rows", "asked"),
    [
        (True, 3, [1, 2, 3]),  # the keys say that there are 7
        (
            False,
            3,
            [1, 2, 3, 4],
        ),  # the third page is not full, so it is the last if nothing is behind it
        (False, 7, [1, 2, 3]),  # an empty page is the end if another one follows
        (True, 7, [1]),
        (
            False,
            10,
            [1, 2, 3],
        ),  # a first page of fewer rows than asked for may be all that the service gives a page
    ],
)
def test_aflow_is_read_in_both_forms_to_the_end(serve, tmp_path, monkeypatch, named, n_rows, asked):
    in_pages_of(monkeypatch, n_rows)
    server = serve(Aflux(ENTRIES, named))
    table = fetch(resolve_source("aflow", tmp_path), server.url + "/API/aflux/")
    assert pages([request.path for request in server.requests]) == asked
    rows = read(table)
    assert [row["material_id"] for row in rows] == [entry["auid"] for entry in ENTRIES]
    assert rows[0] == {
        "formula": "Be1O1",
        "material_id": "aflow:db1f17a6f945c29b",
        "formation_energy": "-2.97",
        "energy_per_atom": "-7.1",
        "band_gap": "6.8531",
        "volume": "14.2",
        "density": "",
        "bulk_modulus": "208.3",
        "shear_modulus": "",
    }
    about = read_about(table)
    assert about["reported"]["bulk_modulus"] == 1
    assert "no row reports shear_modulus" in about["notes"]


@pytest.mark.parametrize("named", [True, False])
def test_aflow_may_give_fewer_rows_a_page_than_asked_for(serve, tmp_path, named):
    server = serve(Aflux(ENTRIES, named, most=2))
    assert len(read(fetch(resolve_source("aflow", tmp_path), server.url + "/API/aflux/"))) == 7
    assert pages([request.path for request in server.requests])[:4] == [1, 2, 3, 4]


def test_a_page_of_aflow_that_is_not_full_though_rows_follow_is_not_the_end(
    serve, tmp_path, monkeypatch
):
    in_pages_of(monkeypatch, 2)
    server = serve(Aflux(ENTRIES, named=False))
    server.faults[1] = lambda answer: Answer(json.dumps(json.loads(answer.body)[:1]).encode())
    with pytest.raises(UserError, match=r"page 2 of .* page 3 has rows"):
        fetch(resolve_source("aflow", tmp_path), server.url + "/API/aflux/")
    assert len(read(fetch(resolve_source("aflow", tmp_path), server.url + "/API/aflux/"))) == 7
    assert pages([request.path for request in server.requests]) == [1, 2, 3, 2, 3, 4, 5]


def test_aflow_packs_from_an_address_of_its_own(serve, pack_command, tmp_path):
    server = serve(Aflux(ENTRIES, named=False))
    arguments = (
        "--source",
        "aflow",
        "--features",
        "elements",
        "--workers",
        1,
        "--url",
        server.url + "/API/aflux/",
    )
    done = pack_command(*arguments, **FAST)
    assert done.returncode == 0, done.stderr
    with open_pack(tmp_path / "packs/aflow-elements.h5") as found:
        assert found.n_rows == 7
        everything = slice(0, 7)
        gaps = dict(zip(found.formulas(everything), found.y("band_gap", everything), strict=True))
        assert gaps["Be1O1"] == 6.8531
        assert gaps["Ca1O1"] == 2
        assert "Curtarolo" in found.attrs["citation"]


def cscl(a: float, species=("Cs", "Cl")) -> Structure:
    return Structure(Lattice.cubic(a), list(species), [[0, 0, 0], [0.5, 0.5, 0.5]])


MP = {
    "mpid": ["mp-1", "mp-2", "mp-3"],
    "formula": ["CsCl", "CsBr", "FeCo"],
    "e_form": [-2.0, -1.8, 0.1],
    "e_hull": [0.0, 0.02, float("nan")],
    "gap pbe": [5.25, 4.0, 0.0],
    "mu_b": [0.0, 0.0, 4.5],
    "bulk modulus": [18.0, float("nan"), 160.0],
    "shear modulus": [10.0, float("nan"), 80.0],
    "elastic anisotropy": [0.1, float("nan"), 1.5],
    "structure": [
        cscl(4.0, (Species("Cs", 1), Species("Cl", -1))),
        cscl(4.5, ("Cs", "Br")),
        cscl(3.0, ({"Fe": 0.5, "Co": 0.5}, "Co")),
    ],
    "initial structure": [cscl(4.1), cscl(4.6), cscl(3.1)],
}
GAPS = {"formula": ["Fe2O3", "NaN", " ", "GaAs"], "gap expt": [2.1, None, 1.0, 1.424]}
STEELS = {"composition": ["Fe0.9C0.1", "Fe0.8Ni0.2"], "yield strength": [1500.25, 900.0]}


@pytest.fixture
def datasets(serve, tmp_path, monkeypatch):
    """Serves small datasets in matminer's own file format, of which its metadata are made to have hash and rows."""
    known = matminer_columns.metadata()
    files = {}

    def publish(name: str, columns: dict, **options) -> str:
        path = tmp_path / "made" / f"{name}.json.gz"
        path.parent.mkdir(exist_ok=True)
        store_dataframe_as_json(pd.DataFrame(columns), str(path), compression="gz", pbar=False)
        body = path.read_bytes()
        files[f"/data/{name}.json.gz"] = body
        known[name] = known[name] | {
            "hash": hashlib.sha256(body).hexdigest(),
            "num_entries": len(pd.DataFrame(columns)),
        }
        publish.server = serve(Files(files, **options))
        known[name]["url"] = f"{publish.server.url}/data/{name}.json.gz"
        return publish.server.url + "/data"

    monkeypatch.setattr(matminer_columns, "metadata", lambda: known)
    monkeypatch.delenv("MATMINER_DATA", raising=False)
    return publish


def test_mp_has_structures_canonical_names_and_what_follows_from_the_structure(datasets, tmp_path):
    table = fetch(resolve_source("mp", tmp_path), datasets("mp_all_20181018", MP))
    assert table.name == "mp.jsonl.gz"
    with gzip.open(table, "rt") as file:
        lines = [json.loads(line) for line in file]
    assert [line["material_id"] for line in lines] == ["mp-1", "mp-2", "mp-3"]
    first = lines[0]
    assert first["lattice"] == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
    assert first["species"] == ["Cs", "Cl"]  # without oxidation states
    assert first["frac_coords"] == [[0, 0, 0], [0.5, 0.5, 0.5]]
    # 64 Å³ hold one CsCl of 132.905 + 35.453 g/mol: 168.358 / (64e-24 × 6.02214e23) = 4.3682 g/cm³.
    assert first["targets"]["density"] == pytest.approx(4.3682, abs=1e-3)
    del first["targets"]["density"]
    assert first["targets"] == {
        "formation_energy": -2,
        "energy_above_hull": 0,
        "band_gap": 5.25,
        "total_magnetization": 0,
        "bulk_modulus": 18,
        "shear_modulus": 10,
        "elastic_anisotropy": 0.1,
        "volume": 64,
        "volume_per_atom": 32,
    }
    assert "bulk_modulus" not in lines[1]["targets"]
    assert lines[2]["species"] == [{"Fe": 0.5, "Co": 0.5}, "Co"]
    about = read_about(table)
    assert (about["dataset"], about["n_rows"], about["licence"]) == (
        "mp_all_20181018",
        3,
        "CC BY 4.0",
    )
    assert about["columns"]["total_magnetization"] == "mu_b"
    assert about["bibtex"][0].startswith("@article{Jain2013")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "made",
        "mp.about.json",
        "mp.jsonl.gz",
    ]


def test_mp_packs_and_is_downloaded_where_only_formulas_are_there(datasets, tmp_path, monkeypatch):
    url = datasets("mp_all_20181018", MP)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mp.csv").write_text("formula,band_gap\nSi,1.1\nGe,0.7\nCsCl,5\n")
    assert ensure(resolve_source("mp", tmp_path / "data"), url) is None
    assert (
        ensure(resolve_source("mp", tmp_path / "data"), url, structures=True).name == "mp.jsonl.gz"
    )
    assert load_table("mp", tmp_path / "data").units == {
        "band_gap": "eV"
    }  # what mp.about.json says is of the other table
    assert load_table("mp", tmp_path / "data", structures=True).units["volume"] == "Å³/cell"
    (tmp_path / "data/mp.csv").unlink()
    folders = {"data_dir": tmp_path / "data", "pack_dir": tmp_path / "packs"}
    pack_source(PackOptions("mp", "elements", workers=1, **folders))
    with open_pack(tmp_path / "packs/mp-elements.h5") as found:
        assert found.n_rows == 3
        assert found.units["volume"] == "Å³/cell"
        assert found.units["total_magnetization"] == "µB/cell"
        everything = slice(0, 3)
        volumes = dict(
            zip(found.material_ids(everything), found.y("volume_per_atom", everything), strict=True)
        )
        assert volumes == {"mp-1": 32, "mp-2": pytest.approx(4.5**3 / 2), "mp-3": 13.5}
    pack_source(PackOptions("mp", "structure", workers=1, **folders))
    with open_pack(tmp_path / "packs/mp-structure.h5") as found:
        assert sorted(found.material_ids(slice(0, found.n_rows))) == [
            "mp-1",
            "mp-2",
        ]  # the third has a disordered site
        assert sum(found.attrs["rejected"].values()) == 1


def test_jarvis_has_both_gaps_and_texts_for_numbers_are_read(datasets, tmp_path):
    columns = {
        "jid": ["JVASP-1", "JVASP-2"],
        "mpid": ["mp-1", None],
        "composition": [Composition("CsCl"), Composition("CsBr")],
        "e_form": [-2.0, -1.8],
        "gap opt": [5.0, 4.0],
        "gap tbmbj": ["8.25", "na"],
        "bulk modulus": [18.0, None],
        "shear modulus": ["", "9.5"],
        "epsilon_x opt": [2.5, 2.6],
        "structure": [cscl(4.0), cscl(4.5, ("Cs", "Br"))],
        "structure initial": [cscl(4.0), cscl(4.5)],
    }
    table = fetch(resolve_source("jarvis", tmp_path), datasets("jarvis_dft_3d", columns))
    loaded = load_table("jarvis", tmp_path, structures=True)
    assert table.name == "jarvis.jsonl.gz"
    assert loaded.table.material_id == ["JVASP-1", "JVASP-2"]
    assert loaded.table.formula == ["CsCl", "CsBr"]
    gaps = loaded.table.targets["band_gap_mbj"]
    assert (gaps[0], loaded.units["band_gap_mbj"]) == (8.25, "eV")
    assert gaps[1] != gaps[1]  # not reported
    assert loaded.table.targets["shear_modulus"][1] == 9.5
    assert loaded.table.targets["volume"][0] == 64
    assert "epsilon_x_opt" not in loaded.units  # whose unit is not stated


def test_a_dataset_of_formulas_becomes_a_csv_and_a_pack(datasets, tmp_path):
    url = datasets("expt_gap", GAPS)
    folders = {"data_dir": tmp_path, "pack_dir": tmp_path}
    pack_source(PackOptions("matminer:expt_gap", "elements", workers=1, url=url, **folders))
    assert read(tmp_path / "matminer-expt_gap.csv.xz") == [
        {"formula": "Fe2O3", "material_id": "expt_gap-1", "band_gap": "2.1"},
        {"formula": "NaN", "material_id": "expt_gap-2", "band_gap": ""},
        {"formula": "GaAs", "material_id": "expt_gap-4", "band_gap": "1.424"},
    ]
    about = read_about(tmp_path / "matminer-expt_gap.csv.xz")
    assert "1 rows left out: no formula" in about["notes"]
    assert about["citation"] == "https://pubs.acs.org/doi/suppl/10.1021/acs.jpclett.8b00124"
    assert "Zhuo" in about["bibtex"][0]
    with open_pack(tmp_path / "matminer-expt_gap-elements.h5") as found:
        assert found.n_rows == 2
        assert found.identity["source"] == "matminer:expt_gap"
        assert found.attrs["citation"] == about["citation"]


def test_units_that_the_metadata_state_need_no_unit_and_others_do(datasets, tmp_path):
    url = datasets("matbench_steels", STEELS)
    table = fetch(resolve_source("matminer:matbench_steels", tmp_path), url)
    assert read_about(table)["units"] == {"yield_strength": "MPa"}
    loaded = load_table("matminer:matbench_steels", tmp_path)
    assert loaded.units == {"yield_strength": "MPa"}
    assert list(loaded.table.targets["yield_strength"]) == [1500.25, 900]
    assert loaded.table.formula == ["Fe0.9C0.1", "Fe0.8Ni0.2"]
    with pytest.raises(
        UserError, match="yield_strength is in MPa, as came with its table, but --unit says 'GPa'"
    ):
        load_table("matminer:matbench_steels", tmp_path, units={"yield_strength": "GPa"})
    glass = {"composition": ["ZrTi", "ZrTi2"], "gfa": [1, 0]}
    fetch(resolve_source("matminer:matbench_glass", tmp_path), datasets("matbench_glass", glass))
    with pytest.raises(UserError, match="has no column named like a property"):
        load_table("matminer:matbench_glass", tmp_path)
    assert load_table(
        "matminer:matbench_glass", tmp_path, properties=["gfa"], units={"gfa": "1"}
    ).units == {"gfa": "1"}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_was_cut_goes_on_where_the_server_offers_ranges(
    datasets, tmp_path, monkeypatch, ranges
):
    monkeypatch.setattr(http, "CHUNK", 10)  # of what is cut, the last part of a chunk is lost
    url = datasets("expt_gap", GAPS, ranges=ranges)
    server = datasets.server
    size = len(server.answer("/data/expt_gap.json.gz", {}).body)
    server.faults[0] = lambda answer: answer._replace(cut=50)
    table = fetch(resolve_source("matminer:expt_gap", tmp_path), url)
    assert len(read(table)) == 3
    assert [request.headers.get("Range") for request in server.requests] == [None, "bytes=50-"]
    sent = server.answer("/data/expt_gap.json.gz", {"Range": "bytes=50-"}).body
    assert len(sent) == (size - 50 if ranges else size)


def test_a_file_whose_beginning_is_wrong_is_fetched_from_the_beginning(datasets, tmp_path):
    url = datasets("expt_gap", GAPS)
    work = tmp_path / ".matminer-expt_gap.download"
    work.mkdir()
    (work / "expt_gap.json.gz.part").write_bytes(b"x" * 60)
    assert len(read(fetch(resolve_source("matminer:expt_gap", tmp_path), url))) == 3
    assert [request.headers.get("Range") for request in datasets.server.requests] == [
        "bytes=60-",
        None,
    ]


def test_a_file_with_another_hash_is_refused(datasets, tmp_path):
    url = datasets("expt_gap", GAPS)
    datasets.server.faults[0] = lambda answer: Answer(b"something else")
    with pytest.raises(UserError, match="sha256"):
        fetch(resolve_source("matminer:expt_gap", tmp_path), url)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]


def test_a_file_that_matminer_has_already_is_not_fetched(datasets, tmp_path, monkeypatch):
    datasets("expt_gap", GAPS)
    monkeypatch.setenv("MATMINER_DATA", str(tmp_path / "made"))
    monkeypatch.setenv("IRNET_OFFLINE", "1")
    assert len(read(ensure(resolve_source("matminer:expt_gap", tmp_path)))) == 3
    assert datasets.server.requests == []
    assert (tmp_path / "made/expt_gap.json.gz").exists()


def test_a_dataset_that_is_none_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"did you mean 'expt_gap'"):
        ensure(resolve_source("matminer:expt_gab", tmp_path))
    with pytest.raises(
        UserError, match="double_perovskites_gap_lumo has no column of formula, composition"
    ):
        ensure(resolve_source("matminer:double_perovskites_gap_lumo", tmp_path))


def test_every_column_of_every_dataset_gets_a_name_and_no_property_a_wrong_one():
    for name, known in matminer_columns.metadata().items():
        names = matminer_columns.table_names(name, list(known["columns"]))
        assert len(set(names.values())) == len(names)
        assert [given for given in names.values() if not NAME.fullmatch(given)] == []
        canonical = matminer_columns.CANONICAL.get(name, {})
        assert {column for column, given in names.items() if given in PROPERTIES} == set(canonical)
        for column, given in canonical.items():
            stated = matminer_columns.unit_in(column, known["columns"][column])
            # What the metadata state, where they state anything, is the property's unit; "in eV" may be meant per atom.
            unit = PROPERTIES[given].unit
            assert stated in (None, unit, unit.removesuffix("/cell")) or (stated, unit) == (
                "eV",
                "eV/atom",
            )


@pytest.mark.parametrize(
    ("name", "column", "given", "unit"),
    [
        ("matbench_log_kvrh", "log10(K_VRH)", "log10_K_VRH", "log10(GPa)"),
        ("castelli_perovskites", "e_form", "e_form", "eV"),  # of a cell, so no formation_energy
        ("heusler_magnetic", "mu_b", "mu_b", None),  # of a formula unit
        ("flla", "formation_energy", "formation_energy_of_flla", None),
        ("jarvis_dft_2d", "exfoliation_en", "exfoliation_en", "meV/atom"),
        (
            "jarvis_ml_dft_training",
            "e_exfol",
            "e_exfol",
            None,
        ),  # stated as eV/atom, which is doubtful
        (
            "boltztrap_mp",
            "pf_n",
            "pf_n",
            None,
        ),  # stated as uW/cm2.K, which is no unit of a power factor
        ("wolverton_oxides", "e_form", "formation_energy", "eV"),  # its authors say eV/atom
        ("superconductivity2018", "Tc", "Tc", "K"),
        ("ucsb_thermoelectrics", "rho (ohm.cm)", "rho", "Ω·cm"),
        ("ricci_boltztrap_mp_tabular", "σᵉ.p.T [K]", "sigmae.p.T", "K"),
        ("matbench_phonons", "last phdos peak", "last_phdos_peak", "1/cm"),
        ("wolverton_oxides", "alpha", "alpha", "degree"),
        ("glass_binary", "gfa", "gfa", None),
        ("dielectric_constant", "n", "n", None),
    ],
)
def test_names_and_units_are_what_a_reader_of_the_metadata_would_say(name, column, given, unit):
    known = matminer_columns.dataset(name)
    assert matminer_columns.table_names(name, list(known["columns"]))[column] == given
    assert matminer_columns.unit_in(column, known["columns"][column]) == unit


def test_formulas_of_compositions_keep_amounts():
    assert matminer.formula_text(Composition("Fe2O3")) == "Fe2O3"
    assert matminer.formula_text(Composition({"Fe": 0.123456789, "C": 1})) == "Fe0.123456789C"
    assert matminer.formula_text("  ") is None


def test_probe_agrees_with_a_service_as_documented_and_says_what_differs(serve, pack_command):
    good = Oqmd(some_rows(30))
    good.total = 1_200_000
    server = serve(good)
    done = pack_command("--probe", "oqmd", "--url", server.url + "/oqmdapi", **FAST)
    assert (done.returncode, done.stdout) == (0, "oqmd is as its reader expects it\n"), done.stderr
    assert len(server.requests) == 1
    rows = [row | {"volume": row["volume"] * 1000, "band_gap": "wide"} for row in some_rows(30)]
    other = Oqmd(rows)
    changed = serve(
        lambda path, headers: Answer(
            other(path, headers).body.replace(b'"natoms"', b'"chi": 1, "natoms"')
        )
    )
    done = pack_command("--probe", "oqmd", "--url", changed.url + "/oqmdapi", **FAST)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "30 rows in all, though 600,000 to 2,500,000 were expected (2026-11: 0.7 million in 2019, above 1.2 million since "
        "2023)",
        "fields that were not expected: chi",
        "band_gap is no number in 20 rows, but 'wide'",
        "20 of 20 values of volume_per_atom are not between 1 and 500 Å³/atom: another unit?",
    ]
    service = Oqmd([CSCL] * 30)
    lacking = serve(
        lambda path, headers: Answer(service(path, headers).body.replace(b"stability", b"hull"))
    )
    assert "stability is missing in 20 of 20 rows" in probe_source("oqmd", lacking.url + "/oqmdapi")
    for body in (b"<html>", b"[" * 100_000, b'{"data": [], "meta": [1]}'):
        page = serve(lambda *_, body=body: Answer(body))
        assert probe_source("oqmd", page.url)[0].startswith("not an answer as documented: ")
    steering = serve(
        lambda path, headers: Answer(service(path, headers).body.replace(b"natoms", b"\\u001b[2J"))
    )
    assert "fields that were not expected: [2J" in probe_source("oqmd", steering.url + "/oqmdapi")


def test_probe_of_aflow_and_of_a_dataset(serve, datasets):
    server = serve(Aflux(ENTRIES * 3, named=False))
    assert probe_source("aflow", server.url + "/") == []
    url = datasets("expt_gap", GAPS)
    assert probe_source("matminer:expt_gap", url) == []
    assert datasets.server.requests[0].headers["Range"] == "bytes=0-1023"
    datasets.server.faults[1] = lambda answer: Answer(b"<html>moved</html>")
    assert (
        "is not packed by gzip: it begins b'<html>moved</html>'"
        in probe_source("matminer:expt_gap", url)[0]
    )
    with pytest.raises(
        UserError, match="unknown source 'alloys'; known: aflow, jarvis, mp, oqmd, oqmd-sc"
    ):
        probe_source("alloys")


def test_the_list_says_what_there_is_and_what_is_here(pack_command, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/aflow.csv").write_text("formula,band_gap\nSi,1.1\n")
    done = pack_command("--list")
    assert done.returncode == 0, done.stderr
    entries = {entry.splitlines()[0]: entry for entry in done.stdout.split("\n\n")}
    assert list(entries) == [
        "alloys",
        "oqmd",
        "oqmd-sc",
        "mp",
        "jarvis",
        "aflow",
        "matminer:NAME",
        "PATH",
    ]
    assert "here        data/aflow.csv" in entries["aflow"]
    assert "here        no" in entries["oqmd"]
    assert "rows        83,989 (2018-10-18, a snapshot)" in entries["mp"]
    assert "total_magnetization (µB/cell)" in entries["mp"]
    assert "licence     CC BY 4.0" in entries["mp"]
    done = pack_command("--list", "matminer")
    assert (
        "matminer:expt_gap\n  6,354 rows, formulas; here: no\n  columns: band_gap (eV)"
        in done.stdout
    )
    assert "matminer:double_perovskites_gap_lumo" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert max(len(line) for entry in entries.values() for line in entry.splitlines()) <= 100
    done = pack_command("--list", "oqmd")
    assert (done.returncode, done.stderr) == (
        2,
        "error: unknown catalogue (of --list) 'oqmd'; known: matminer\n",
    )
