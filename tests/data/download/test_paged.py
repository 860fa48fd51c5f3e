"""Pages of a service: totals, repetitions, rows that are no materials."""

import json
import logging

import pytest

from irnet_hpc.data.download.obtain import fetch
from irnet_hpc.data.raw_table import read_about
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from tests.builders import load_table
from tests.data.download.services import in_pages_of, read
from tests.data.http_server import CSCL, Answer, Oqmd, some_rows


@pytest.mark.parametrize("where", ["on the way", "between two commands"])
def test_a_total_that_changes_discards_the_pages_and_starts_again(
    serve, tmp_path, monkeypatch, where, caplog
):
    caplog.set_level(logging.INFO)
    in_pages_of(monkeypatch, 4)
    service = Oqmd(some_rows(10))
    server = serve(service)

    def grows(answer: Answer) -> Answer:
        service.rows = [CSCL | {"entry_id": 99, "name": "CsBr"}, *some_rows(10)]
        return service(server.requests[-1].path, {}) if where == "on the way" else Answer(b"", 404)

    server.faults[2] = grows
    if where == "between two commands":
        with pytest.raises(UserError, match="answers 404 Not Found"):
            fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    table = fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    # With the row in front, rows 5 to 8 are now those at offsets 5 to 8: mixed with the first page,
    # one would come twice.
    assert [row["material_id"] for row in read(table)] == [f"oqmd-{n}" for n in (99, *range(1, 11))]
    assert "had 10, then 11 rows" in caplog.text


def test_a_total_that_does_not_keep_still_is_one_sentence(serve, tmp_path, monkeypatch):
    in_pages_of(monkeypatch, 4)
    service = Oqmd(some_rows(20))
    server = serve(service)
    service.total = 19
    for number in range(30):
        server.faults[number] = lambda answer: Answer(
            answer.body.replace(
                b'"data_available": 19', f'"data_available": {len(server.requests) + 11}'.encode()
            )
        )
    with pytest.raises(UserError, match="changed 3 times while it was downloaded"):
        fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    assert not list(tmp_path.glob("*.csv.xz"))


def test_a_row_that_comes_twice_is_counted_and_kept_once(serve, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    in_pages_of(monkeypatch, 4)
    rows = some_rows(10)
    rows[5] = rows[2]  # as where a service without an order repeats a row on the next page
    rows[7] = rows[1] | {
        "delta_e": -7.0
    }  # another calculation of one entry, whose energy is the lowest of them
    rows[8] = rows[1] | {"delta_e": None}
    table = fetch(resolve_source("oqmd", tmp_path), serve(Oqmd(rows)).url + "/oqmdapi")
    found = {row["material_id"]: row["formation_energy"] for row in read(table)}
    assert len(found) == len(read(table)) == 7
    assert found["oqmd-2"] == "-7.0"
    notes = " ".join(read_about(table)["notes"])
    assert "1 rows came twice and were kept once" in notes
    assert "2 rows had the id of an earlier row but other values and were left out" in notes
    assert "note: 1 rows came twice" in caplog.text


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        *[
            ({"name": text}, 2)
            for text in ("Cs\nCl", "Cs\rCl", "Cs\0", "\ud800", "Cs" * 501, '=cmd("x")\n,1')
        ],
        ({"entry_id": '=1\n"x",\n../../'}, 2),
        ({"name": '=cmd("x"),1'}, 3),  # a text like others: no formula, which packing rejects
        ({"volume": 1e308, "natoms": 1e-9}, 3),  # whose quotient is infinite
        ({"volume": 73.2, "natoms": -2}, 3),
        (
            {
                "delta_e": {"a": [1]},
                "stability": [],
                "band_gap": True,
                "natoms": "2",
                "volume": "x",
            },
            3,
        ),
    ],
)
def test_no_row_of_a_service_makes_the_table_unreadable(serve, tmp_path, changed, left):
    rows = some_rows(3)
    rows[1] |= changed
    table = fetch(resolve_source("oqmd", tmp_path), serve(Oqmd(rows)).url + "/oqmdapi")
    loaded = load_table("oqmd", tmp_path).table
    assert len(loaded) == len(read(table)) == left
    if left == 2:
        assert any(
            "left out: a formula or an id that has more than 1,000 characters" in n
            for n in read_about(table)["notes"]
        )
    else:
        assert loaded.targets["volume_per_atom"][0] == 36.6
        assert not (loaded.targets["volume_per_atom"] < 0).any()


def test_rows_that_are_no_materials_are_one_sentence_and_their_pages_are_not_kept(serve, tmp_path):
    service = Oqmd([row | {"name": None} for row in some_rows(3)])
    server = serve(service)
    with pytest.raises(
        UserError, match=r"not one row of .* \(3 rows left out: no formula; no row reports"
    ):
        fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    service.rows = some_rows(3)
    assert len(read(fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi"))) == 3


def test_a_service_that_gives_the_same_page_again_is_not_believed(serve, tmp_path, monkeypatch):
    in_pages_of(monkeypatch, 4)
    first = some_rows(4)
    server = serve(
        lambda *_: Answer(json.dumps({"data": first, "meta": {"data_available": 10**30}}).encode())
    )
    with pytest.raises(UserError, match="page 2 repeats page 1"):
        fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    assert len(server.requests) == 7


def test_a_field_that_is_gone_is_one_sentence_at_once(serve, tmp_path):
    service = Oqmd(some_rows(3))
    server = serve(
        lambda path, headers: Answer(service(path, headers).body.replace(b"delta_e", b"deltaE"))
    )
    with pytest.raises(UserError, match=r"have no delta_e: the service has changed; pack --probe"):
        fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    assert len(server.requests) == 1
