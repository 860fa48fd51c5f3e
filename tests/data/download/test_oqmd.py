"""Tables of OQMD from a service that answers as documented."""

import gzip
import json
import re

from irnet_hpc.data.download.obtain import fetch
from irnet_hpc.data.raw_table import read_about
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.pack.store import open_pack
from tests.builders import load_table
from tests.data.download.services import in_pages_of, read
from tests.data.http_server import CSCL, FAST, Oqmd, pages, some_rows


def test_a_table_is_what_the_service_gave_with_its_licence_and_nothing_else_is_left(
    serve, tmp_path, monkeypatch
):
    in_pages_of(monkeypatch, 4)
    server = serve(Oqmd(some_rows(10)))
    table = fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["oqmd.about.json", "oqmd.csv.xz"]
    rows = read(table)
    assert len(rows) == 10
    assert rows[0] == {
        "formula": "CsCl",
        "material_id": "oqmd-1",
        "formation_energy": "-2.05739610121138",
        "energy_above_hull": "-0.0125",
        "band_gap": "5.255",
        "volume_per_atom": "36.6",
    }
    assert [row["material_id"] for row in rows] == [f"oqmd-{n}" for n in range(1, 11)]
    about = read_about(table)
    assert (about["source"], about["n_rows"], about["licence"]) == ("oqmd", 10, "CC BY 4.0")
    assert about["url"].startswith(f"{server.url}/oqmdapi/formationenergy?fields=name,entry_id,")
    assert about["units"]["volume_per_atom"] == "Å³/atom"
    assert "Kirklin" in about["citation"]
    assert (
        about["sha256"] == load_table("oqmd", tmp_path).table.sha256
    )  # which is the hash of the table's text
    assert pages([request.path for request in server.requests]) == [0, 4, 8]
    agents = {request.headers["User-Agent"] for request in server.requests}
    assert len(agents) == 1
    assert agents.pop().startswith("irnet_hpc/0.1.0 ")


def test_rows_without_a_formula_are_left_out_and_counted_and_what_is_null_is_empty(serve, tmp_path):
    rows = [
        CSCL,
        CSCL | {"entry_id": 2, "name": None},
        CSCL | {"entry_id": 3, "band_gap": None, "volume": None},
    ]
    table = fetch(resolve_source("oqmd", tmp_path), serve(Oqmd(rows)).url + "/oqmdapi")
    assert [
        (row["material_id"], row["band_gap"], row["volume_per_atom"]) for row in read(table)
    ] == [
        ("oqmd-1", "5.255", "36.6"),
        ("oqmd-3", "", ""),
    ]
    assert "1 rows left out: no formula" in read_about(table)["notes"]


def test_structures_are_lattice_species_and_fractional_coordinates(serve, tmp_path):
    vacancy = CSCL | {"entry_id": 2, "sites": ["Vac @ 0 0 0", "Cl @ 0.5 0.5 0.5"]}
    mixed = CSCL | {"entry_id": 3, "sites": ["(Cs,Rb) @ 0 0 0", "Cl @ 0.5 0.5 0.5"]}
    lacking = CSCL | {"entry_id": 4, "unit_cell": None, "sites": None}
    other = CSCL | {"entry_id": 5, "natoms": 4}
    hexagonal = {
        "name": "He",
        "entry_id": 8085,
        "delta_e": 0.0,
        "stability": 0.0,
        "band_gap": 17.5,
        "natoms": 2,
        "volume": 19.19,
        "unit_cell": [[2.386049, 4.1e-05, 0.0], [-1.19299, 2.066025, 0.0], [0.0, 0.0, 3.892988]],
        "sites": ["He @ 0.333 0.667 0.25", "He @ 0.667 0.333 0.75"],
    }  # an entry of the service's own, as the examples of qmpy_rester keep it
    server = serve(Oqmd([CSCL, vacancy, mixed, lacking, other, hexagonal]))
    table = fetch(resolve_source("oqmd-sc", tmp_path), server.url + "/oqmdapi")
    assert table.name == "oqmd-sc.jsonl.gz"
    with gzip.open(table, "rt") as file:
        lines = [json.loads(line) for line in file]
    assert [line["material_id"] for line in lines] == ["oqmd-1", "oqmd-8085"]
    assert lines[0] == {
        "material_id": "oqmd-1",
        "formula": "CsCl",
        "lattice": [[4.1822, 0, 0], [0, 4.1822, 0], [0, 0, 4.1822]],
        "species": ["Cs", "Cl"],
        "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
        "targets": {
            "formation_energy": -2.05739610121138,
            "energy_above_hull": -0.0125,
            "band_gap": 5.255,
            "volume_per_atom": 36.6,
        },
    }
    assert lines[1]["lattice"][1] == [
        -1.19299,
        2.066025,
        0.0,
    ]  # a vector a row: the angle of 120° is between rows
    assert set(read_about(table)["notes"]) >= {
        "2 rows left out: a site is not of one element",
        "1 rows left out: no structure",
        "1 rows left out: the number of sites differs from natoms",
    }
    loaded = load_table("oqmd-sc", tmp_path, structures=True)
    assert loaded.table.formula == ["CsCl", "He"]
    assert list(loaded.table.crystals.n_sites) == [2, 2]


def test_polymorphs_of_oqmd_sc_are_kept_and_those_of_oqmd_are_not(serve, pack_command, tmp_path):
    rows = [*some_rows(30), CSCL | {"entry_id": 100, "delta_e": -1.5}]
    server = serve(Oqmd(rows))
    for source, n_rows in (("oqmd", 30), ("oqmd-sc", 31)):
        arguments = (
            "--source",
            source,
            "--features",
            "elements",
            "--workers",
            1,
            "--url",
            server.url + "/oqmdapi",
        )
        done = pack_command(*arguments, **FAST)
        assert done.returncode == 0, done.stderr
        assert "to data/: 600,000 to 2,500,000 rows" in done.stdout
        assert "licence: CC BY 4.0" in done.stdout
        assert re.search(rf"^wrote data/{source}\.\S+: 31 rows", done.stdout, re.M)
        assert done.stdout.splitlines()[-1].startswith(
            f"next: python -m irnet_hpc.train --pack {source}-elements "
        )
        with open_pack(tmp_path / f"packs/{source}-elements.h5") as pack:
            assert pack.n_rows == n_rows
            everything = slice(0, n_rows)
            energies = dict(
                zip(
                    pack.material_ids(everything),
                    pack.y("formation_energy", everything),
                    strict=True,
                )
            )
            assert energies["oqmd-1"] == -2.05739610121138
            assert "Saal" in pack.attrs["citation"]
