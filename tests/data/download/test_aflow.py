"""Tables of AFLOW from a service that answers as documented."""

import json

import pytest

from irnet_hpc.data.download import aflow
from irnet_hpc.data.download.obtain import fetch
from irnet_hpc.data.download.registry import DOWNLOADS
from irnet_hpc.data.raw_table import read_about
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from irnet_hpc.pack.store import open_pack
from tests.data.download.services import ENTRIES, read
from tests.data.http_server import FAST, Aflux, Answer, pages


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


def in_pages_of(monkeypatch: pytest.MonkeyPatch, n_rows: int) -> None:
    small = aflow.ENTRIES._replace(n_rows=n_rows)
    monkeypatch.setitem(DOWNLOADS, "aflow", DOWNLOADS["aflow"]._replace(service=small))


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
