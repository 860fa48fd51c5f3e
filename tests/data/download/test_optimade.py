"""OPTIMADE: the reference server, read through a relay that can have faults."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator

import numpy as np
import pytest

from irnet_hpc.data.catalogue import list_sources
from irnet_hpc.data.download.obtain import ensure, fetch
from irnet_hpc.data.download.optimade import pages as paging
from irnet_hpc.data.raw_table import read_about
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from irnet_hpc.pack import cli
from irnet_hpc.pack.store import open_pack
from tests.builders import load_table
from tests.conftest import ROOT
from tests.data.download.optimade_service import Relay, documents
from tests.data.download.services import start
from tests.data.download.test_work_folder import wait_until
from tests.data.http_server import Answer

pytest.importorskip("optimade")


@pytest.fixture(scope="module")
def port(tmp_path_factory) -> Iterator[int]:
    """Start the reference server in a process of its own."""
    path = tmp_path_factory.mktemp("optimade") / "structures.json"
    path.write_text(json.dumps(documents()))
    command = [sys.executable, "-m", "tests.data.download.optimade_server", str(path)]
    # Its log would go to the same pipe, and fill it.
    environment = os.environ | {"OPTIMADE_LOG_LEVEL": "critical"}
    server = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield next(int(line[5:]) for line in server.stdout if line.startswith("port "))
    finally:
        server.kill()
        server.communicate()


@pytest.fixture
def relay(port, serve, monkeypatch):
    """Start a relay; the server needs no more than 60 s for an answer."""
    monkeypatch.setenv("IRNET_TIMEOUT_S", "60")
    return serve(Relay(port))


def structure_requests(server) -> list[dict[str, str]]:
    """Return the parameters of the requests for structures."""
    split = [urllib.parse.urlsplit(request.path) for request in server.requests]
    return [
        {key: values[0] for key, values in urllib.parse.parse_qs(one.query).items()}
        for one in split
        if one.path == "/v1/structures"
    ]


def ids_of(url: str, folder, **options) -> list[str]:
    return load_table(f"optimade:{url}", folder, **options).table.material_id


def changed(answer: Answer, **parts) -> Answer:
    """Replace top-level parts of an answer."""
    return Answer(json.dumps(json.loads(answer.body) | parts).encode())


def test_a_service_becomes_a_pack_with_its_ids_units_and_filter(relay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["--source", f"optimade:{relay.url}", "--filter", 'elements HAS "Cl"']
    command += ["--features", "structure", "--workers", "1", "--name", "salts"]
    command += ["--data-dir", "data", "--pack-dir", "packs"]
    command += ["--rename", "_exmpl_gap=band_gap", "--property", "band_gap"]
    assert not cli.main(command)
    assert [request.get("filter") for request in structure_requests(relay)] == [
        'elements HAS "Cl"'
    ] * 3  # 500 and 100 entries a page are refused
    with open_pack("packs/salts.h5") as pack:
        ids = list(pack.material_ids(slice(0, pack.n_rows)))
        gaps = dict(zip(ids, pack.y("band_gap", slice(0, pack.n_rows)), strict=True))
        assert gaps == pytest.approx({f"t-{n}": 5 + n / 1000 for n in range(6, 12)})
        assert pack.identity["source"] == f'optimade:{relay.url}?filter=elements HAS "Cl"'
        assert pack.identity["reading"] == {"rename": {"_exmpl_gap": "band_gap"}}
        assert pack.units == {"band_gap": "eV"}
        assert pack.n_features == 126
        # One crystal but for its elements, so features of geometry alone are equal.
        x = pack.x(slice(0, pack.n_rows))
        assert np.ptp(x, axis=0).min() == 0 < np.ptp(x, axis=0).max()
        assert pack.attrs["citation"] == "https://example.com/"
    (about,) = (tmp_path / "data").glob("*.about.json")
    facts = json.loads(about.read_text())
    assert facts["provider"]["prefix"] == "exmpl"
    assert facts["units"] == {"_exmpl_gap": "meV", "_exmpl_delta_e": "eV/atom"}
    assert facts["n_fetched"] == facts["n_rows"] == 6
    assert not cli.main(command)  # without another request
    assert len(structure_requests(relay)) == 3


def test_all_pages_come_in_order_and_each_once(relay, tmp_path):
    fetch(resolve_source(f"optimade:{relay.url}", tmp_path))
    assert [asked.get("page_limit") for asked in structure_requests(relay)[:3]] == [
        "500",
        "100",
        None,
    ]
    offsets = [int(asked.get("page_offset", 0)) for asked in structure_requests(relay)[2:]]
    assert offsets == [0, 7, 14, 21]
    table = load_table(f"optimade:{relay.url}", tmp_path).table
    assert list(table.material_id) == [one["id"] for one in documents()]
    assert table.targets["exmpl_delta_e"][3] == -2.03


def test_numbers_within_a_property_have_names_with_points(relay, tmp_path):
    source = f"optimade:{relay.url}"
    fetch(resolve_source(source, tmp_path))
    name = "exmpl_stability.pbe.hull"
    table = load_table(source, tmp_path, properties=[name], units={name: "eV/atom"}).table
    assert table.targets[name][:3].tolist() == [0, 0.001, 0.002]


def test_a_property_needs_a_unit_that_fits(relay, tmp_path):
    source = f"optimade:{relay.url}"
    fetch(resolve_source(source, tmp_path))

    def load(rename: dict[str, str], **options):
        return load_table_renamed(source, tmp_path, rename, **options)

    with pytest.raises(UserError, match="in meV, which cannot be converted to eV/atom"):
        load({"_exmpl_gap": "formation_energy"})
    with pytest.raises(UserError, match=r"does not state the unit of '_exmpl_hardness'.*--unit"):
        load({"_exmpl_hardness": "bulk_modulus"})
    loaded = load({"_exmpl_hardness": "bulk_modulus"}, units={"bulk_modulus": "GPa"})
    assert loaded.table.targets["bulk_modulus"][5] == 0.5
    with pytest.raises(UserError, match="unit of 'exmpl_hardness' is unknown"):
        load({}, properties=["_exmpl_hardness"])
    loaded = load({"exmpl_gap": "gap_pbe"}, units={"gap_pbe": "eV"}, properties=["gap_pbe"])
    assert loaded.units == {"gap_pbe": "eV"}
    assert loaded.table.targets["gap_pbe"][5] == 5.005
    with pytest.raises(UserError, match="meV cannot be converted to GPa"):
        load({}, units={"exmpl_gap": "GPa"})
    with pytest.raises(UserError, match="unknown column"):
        load({"_exmpl_gab": "band_gap"})


def load_table_renamed(source, folder, rename, **options):
    from irnet_hpc.data.loading import load_source
    from irnet_hpc.data.reading import Reading

    return load_source(resolve_source(source, folder, reading=Reading(rename=rename)), **options)


def test_structures_that_cannot_be_used_are_rejected_and_their_formulas_packed(
    relay, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    command = ["--source", f"optimade:{relay.url}", "--workers", "1", "--data-dir", "data"]
    command += ["--pack-dir", "packs", "--property", "exmpl_gap", "--features"]
    cli.main([*command, "structure", "--name", "crystals"])
    cli.main([*command, "elements", "--name", "formulas"])
    lines = (tmp_path / "packs/crystals.rejected.csv").read_text().splitlines()
    reasons = {line.split(",")[1]: line.split(",")[3] for line in lines[1:]}
    assert reasons == {
        "holes": "disordered site",
        "group": "atoms without positions",
        "layer": "not periodic in three directions",
        "nowhere": "no structure",
    }
    with open_pack("packs/crystals.h5") as pack:
        assert pack.n_rows == 18
    with open_pack("packs/formulas.h5") as pack:
        every = slice(0, pack.n_rows)
        ids, formulas = list(pack.material_ids(every)), list(pack.formulas(every))
        assert pack.n_rows == 22
        # Nine in ten of the sites of potassium are occupied.
        column = list(pack.feature_labels).index("K")
        assert pack.x(every)[ids.index("holes"), column] == pytest.approx(0.9 / 1.9)
        assert formulas[ids.index("layer")] in ("FRb", "RbF")


def test_a_killed_download_resumes_and_no_page_is_fetched_twice(relay, tmp_path):
    relay.hold.clear()
    relay.hold_from = 6  # two questions, two refusals, two pages
    command = ("--source", f"optimade:{relay.url}", "--name", "all")
    process = start(tmp_path, *command)
    wait_until(lambda: len(relay.requests) == 7)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (work,) = (tmp_path / "data").glob(".*.download")
    assert len(list(work.glob("[0-9]*.json.gz"))) == 2
    relay.hold.set()
    output, errors = start(tmp_path, *command).communicate(timeout=600)
    assert "2 of 2 pages of an earlier download are sound and kept" in output, errors
    again = [request.path for request in relay.requests[7:]]
    assert [path.partition("?")[0] for path in again] == [
        "/v1/info/structures",
        "/v1/info",
        "/v1/structures",
        "/v1/structures",
    ]
    offsets = [asked["page_offset"] for asked in structure_requests(relay)[5:]]
    assert offsets == ["14", "21"]
    assert not work.exists()
    with open_pack(tmp_path / "packs/all.h5") as pack:
        assert pack.n_rows == 22


def test_a_damaged_page_and_all_after_it_are_fetched_again(relay, tmp_path):
    source = resolve_source(f"optimade:{relay.url}", tmp_path)
    for number in range(7, 13):
        relay.faults[number] = lambda answer: Answer(b"", 500)
    with pytest.raises(UserError, match="answers 500"):
        fetch(source)
    (work,) = tmp_path.glob(".*.download")
    kept = sorted(work.glob("[0-9]*.json.gz"))
    assert len(kept) == 3
    kept[1].write_bytes(kept[1].read_bytes()[:-5])
    relay.faults.clear()
    n_before = len(structure_requests(relay))
    fetch(source)
    offsets = [asked["page_offset"] for asked in structure_requests(relay)[n_before:]]
    assert offsets == ["7", "14", "21"]
    assert len(ids_of(relay.url, tmp_path)) == 22


PASSING = {
    "HTML": lambda answer: Answer(b"<html><body>maintenance</body></html>"),
    "other JSON": lambda answer: Answer(b'{"rows": []}'),
    "a list": lambda answer: Answer(b"[1, 2]"),
    "data of another kind": lambda answer: changed(answer, data=[1]),
    "half of it": lambda answer: answer._replace(body=answer.body[:-40]),
    "cut off": lambda answer: answer._replace(cut=100),
    "a next page that is no address": lambda answer: changed(answer, links={"next": 7}),
    "no next page, though there is more": lambda answer: changed(answer, links={}),
    "an error with status 200": lambda answer: Answer(b'{"errors": [{"detail": "busy"}]}'),
    "429": lambda answer: Answer(b"", 429, {"Retry-After": "0"}),
    "503": lambda answer: Answer(b"", 503),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_costs_no_entry(relay, tmp_path, fault):
    relay.faults[5] = PASSING[fault]  # the second page
    fetch(resolve_source(f"optimade:{relay.url}", tmp_path))
    assert len(relay.requests) == 9
    assert len(ids_of(relay.url, tmp_path)) == 22


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("HTML", "wrong form .* which begins b'<html>"),
        ("other JSON", "wrong form .the answer must have an object named data"),
        ("an error with status 200", "reports an error: busy"),
    ],
)
def test_a_fault_that_stays_is_one_sentence(relay, tmp_path, fault, says):
    for number in range(20):
        relay.faults[number] = PASSING[fault]
    with pytest.raises(UserError, match=says):
        fetch(resolve_source(f"optimade:{relay.url}", tmp_path))
    assert len(relay.requests) == 6
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_a_service_asks_for_is_kept(relay, tmp_path, status):
    relay.faults[5] = lambda answer: Answer(b"", status, {"Retry-After": "2"})
    fetch(resolve_source(f"optimade:{relay.url}", tmp_path))
    assert relay.requests[6].time - relay.requests[5].time >= 2
    assert relay.requests[6].path == relay.requests[5].path


def test_a_service_that_asks_for_hours_ends_the_command_and_keeps_the_pages(relay, tmp_path):
    relay.faults[5] = lambda answer: Answer(b"", 503, {"Retry-After": "7200"})
    with pytest.raises(UserError, match="asks to wait 7,200 s"):
        fetch(resolve_source(f"optimade:{relay.url}", tmp_path))
    (work,) = tmp_path.glob(".*.download")
    assert len(list(work.glob("[0-9]*.json.gz"))) == 1


def test_a_pause_that_a_service_asks_for_is_kept(relay, tmp_path):
    def asks(answer: Answer) -> Answer:
        meta = json.loads(answer.body)["meta"] | {"request_delay": 1.5}
        return changed(answer, meta=meta)

    relay.faults[4] = asks
    fetch(resolve_source(f"optimade:{relay.url}", tmp_path))
    assert relay.requests[5].time - relay.requests[4].time >= 1.5


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.2:{port}/v1/structures?page_offset=7",
        "https://127.0.0.1:{port}/v1/structures?page_offset=7",
        "http://127.0.0.1:1/v1/structures?page_offset=7",
        "file:///etc/hostname",
        "http://127.0.0.1:{port}@127.0.0.2/v1/structures",
        "//127.0.0.2/v1/structures",
    ],
)
def test_a_next_page_on_another_host_is_refused_unasked(relay, tmp_path, address):
    port = urllib.parse.urlsplit(relay.url).port
    relay.faults[4] = lambda answer: changed(answer, links={"next": address.format(port=port)})
    with pytest.raises(UserError, match="on another host"):
        fetch(resolve_source(f"optimade:{relay.url}", tmp_path))
    assert len(relay.requests) == 5


def test_a_next_page_may_be_an_object_or_a_relative_address(relay, tmp_path):
    def relative(answer: Answer) -> Answer:
        return changed(answer, links={"next": {"href": "/v1/structures?page_offset=7"}})

    relay.faults[4] = relative
    fetch(resolve_source(f"optimade:{relay.url}", tmp_path))
    assert len(ids_of(relay.url, tmp_path)) == 22


def test_an_address_behind_a_proxy_stays_encrypted():
    follow = paging.same_host
    base = "https://a.org/optimade"
    assert follow(base, "http://a.org/x?page=2") == "https://a.org/x?page=2"
    assert follow(base, "http://A.org:80/x") == "https://a.org/x"
    assert follow(base, "https://a.org:8443/x") == ""
    assert follow("http://a.org", "https://a.org/x") == ""
    assert follow(base, "https://a.org:port/x") == ""


@pytest.mark.parametrize("has_total", [True, False])
def test_pages_that_repeat_or_never_end_are_not_believed(relay, tmp_path, has_total):
    relay_to = relay.answer
    n_asked = 0

    def endless(path: str, headers: dict[str, str]) -> Answer:
        """Answer every request for structures with the first page and a next one."""
        nonlocal n_asked
        if not path.startswith("/v1/structures"):
            return relay_to(path, headers)
        n_asked += 1
        answer = relay_to("/v1/structures?page_limit=7", headers)
        body = json.loads(answer.body)
        meta = body["meta"] | {"data_returned": 22 if has_total else None}
        return changed(answer, meta=meta, links={"next": f"/v1/structures?page_cursor={n_asked}"})

    relay.answer = endless
    with pytest.raises(UserError, match="page 2 repeats entries of earlier pages"):
        fetch(resolve_source(f"optimade:{relay.url}", tmp_path))
    assert n_asked == 7


def test_a_next_page_that_was_fetched_before_is_refused(relay, tmp_path):
    relay.faults[6] = lambda answer: changed(
        answer, links={"next": relay.url + relay.requests[5].path}
    )
    with pytest.raises(UserError, match="one that was fetched before"):
        fetch(resolve_source(f"optimade:{relay.url}", tmp_path))


def test_more_entries_than_the_service_states_are_refused(relay, tmp_path):
    relay_to = relay.answer
    n_asked = 0

    def renamed(path: str, headers: dict[str, str]) -> Answer:
        """Answer with entries that are new each time."""
        nonlocal n_asked
        if not path.startswith("/v1/structures"):
            return relay_to(path, headers)
        n_asked += 1
        answer = relay_to("/v1/structures?page_limit=7", headers)
        entries = [
            one | {"id": f"{one['id']}-{n_asked}"} for one in json.loads(answer.body)["data"]
        ]
        return changed(
            answer, data=entries, links={"next": f"/v1/structures?page_cursor={n_asked}"}
        )

    relay.answer = renamed
    with pytest.raises(UserError, match="more entries than 22, which it says there are"):
        fetch(resolve_source(f"optimade:{relay.url}", tmp_path))
    assert n_asked == 4


def test_fewer_entries_than_the_service_states_are_refused(relay, tmp_path):
    def short(answer: Answer) -> Answer:
        body = json.loads(answer.body)
        return changed(answer, data=body["data"][1:])

    relay.faults[5] = short
    source = resolve_source(f"optimade:{relay.url}", tmp_path)
    with pytest.raises(UserError, match="ends after 21 of 22 entries"):
        fetch(source)
    assert source.table_path() is None


def test_a_total_that_changes_discards_the_pages(relay, tmp_path, caplog):
    caplog.set_level(logging.INFO)

    def more(answer: Answer) -> Answer:
        meta = json.loads(answer.body)["meta"] | {"data_returned": 23}
        return changed(answer, meta=meta)

    relay.faults[5] = more
    fetch(resolve_source(f"optimade:{relay.url}", tmp_path))
    assert "had 22, then 23 rows: its content changed" in caplog.text
    assert len(ids_of(relay.url, tmp_path)) == 22


def test_a_count_of_the_page_is_not_taken_for_the_total(relay, tmp_path):
    relay_to = relay.answer

    def counts_pages(path: str, headers: dict[str, str]) -> Answer:
        answer = relay_to(path, headers)
        body = json.loads(answer.body)
        n_entries = len(body.get("data", []))
        return (
            answer
            if answer.status != 200
            else changed(answer, meta=body["meta"] | {"data_returned": n_entries})
        )

    relay.answer = counts_pages
    table = fetch(resolve_source(f"optimade:{relay.url}", tmp_path))
    assert read_about(table)["n_rows"] == 22
    assert read_about(table)["n_fetched"] is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("elements HAS", "answers 400 to the filter 'elements HAS': Bad Request"),
        ("_exmpl_nothing=3", "'_exmpl_nothing' is not a known or searchable quantity"),
        ('elements HAS "Xe"', "not one entry of .* matches the filter"),
    ],
)
def test_a_filter_that_is_refused_or_finds_nothing_is_one_sentence(relay, tmp_path, text, says):
    with pytest.raises(UserError, match=says):
        fetch(resolve_source(f"optimade:{relay.url}?filter={text}", tmp_path))
    assert not list(tmp_path.glob("*.gz"))


def test_letters_with_a_meaning_in_addresses_reach_the_service_unchanged(relay, tmp_path):
    text = 'id="t-1" OR id="a+b&c#d%20e?filter=f"'
    fetch(resolve_source(f"optimade:{relay.url}?filter={text}", tmp_path))
    assert {asked["filter"] for asked in structure_requests(relay)} == {text}
    assert list(ids_of(f"{relay.url}?filter={text}", tmp_path)) == ["t-1"]


def test_the_properties_of_a_service_are_listed_with_their_units(relay):
    lines = list_sources(f"optimade:{relay.url}").splitlines()
    assert "  _exmpl_gap (meV): band gap, by PBE" in lines
    assert not any("label" in line for line in lines)


def test_no_network_is_one_sentence(relay, tmp_path, monkeypatch):
    monkeypatch.setenv("IRNET_OFFLINE", "1")
    with pytest.raises(UserError, match="IRNET_OFFLINE forbids downloading it"):
        ensure(resolve_source(f"optimade:{relay.url}", tmp_path))
    assert not relay.requests


def test_a_mirror_is_asked_in_place_of_a_provider(relay, tmp_path):
    source = resolve_source("optimade:exmpl", tmp_path)
    assert fetch(source, relay.url).name == "optimade-exmpl.jsonl.gz"
    assert load_table("optimade:exmpl", tmp_path).identity == "optimade:exmpl"


def test_structures_are_those_of_the_consortiums_own_adapter(relay):
    from optimade.adapters import Structure

    from irnet_hpc.data.download.optimade.entries import record_of
    from irnet_hpc.data.structures.entries import entry_of_pymatgen

    entries = json.loads(relay.answer("/v1/structures?page_limit=50", {"Host": "x"}).body)["data"]
    compared = 0
    for entry in entries:
        record = record_of(entry, [])
        if record.cell is None:
            continue
        theirs = entry_of_pymatgen(Structure(entry).as_pymatgen)
        assert record.cell.species == theirs["species"]
        assert record.cell.lattice == theirs["lattice"]
        assert np.allclose(record.cell.frac_coords, theirs["frac_coords"], atol=1e-12)
        compared += 1
    assert compared == 19


def test_requests_follow_one_another_with_pauses(relay, tmp_path, monkeypatch):
    monkeypatch.setenv("IRNET_BACKOFF_S", "0.8")
    began = time.monotonic()
    fetch(resolve_source(f"optimade:{relay.url}", tmp_path))
    assert time.monotonic() - began >= 4 * 0.1  # an eighth of 0.8 s after each page
