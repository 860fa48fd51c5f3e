"""Downloads of paged services: a real server on loopback that answers as OQMD documents, and fails in every way that one can."""

import csv
import email.utils
import fcntl
import gzip
import json
import logging
import lzma
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from irnet_hpc.data.download import http, oqmd
from irnet_hpc.data.download.obtain import ensure, fetch
from irnet_hpc.data.download.registry import DOWNLOADS
from irnet_hpc.data.download.work_folder import locked
from irnet_hpc.data.raw_table import read_about
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from irnet_hpc.files import replacing
from irnet_hpc.pack.store import open_pack
from tests.builders import load_table
from tests.data.http_server import CSCL, FAST, Answer, Oqmd, packed, pages, some_rows

ROOT = Path(__file__).parents[2]


def in_pages_of(monkeypatch: pytest.MonkeyPatch, n_rows: int) -> None:
    small = oqmd.COMPOSITIONS._replace(n_rows=n_rows)
    monkeypatch.setitem(DOWNLOADS, "oqmd", DOWNLOADS["oqmd"]._replace(service=small))


def read(table: Path) -> list[dict[str, str]]:
    with lzma.open(table, "rt", newline="") as file:
        return list(csv.DictReader(file))


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


def test_answers_may_be_packed(serve, tmp_path):
    service = Oqmd(some_rows(3))
    server = serve(lambda path, headers: packed(service(path, headers)))
    assert len(read(fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi"))) == 3
    assert "gzip" in server.requests[0].headers["Accept-Encoding"]


FAULTS = {
    "silent": lambda answer: answer._replace(wait_s=0.9),  # above the 0.5 s of FAST
    "a 500": lambda answer: Answer(b"oops", 500),
    "a 502 without a body": lambda answer: Answer(b"", 502),
    "cut before the headers' promise": lambda answer: answer._replace(cut=100),
    "cut at once": lambda answer: answer._replace(cut=0),
    "half of the JSON, with a fitting length": lambda answer: answer._replace(
        body=answer.body[:-40]
    ),
    "a chunk of negative length": lambda answer: answer._replace(
        body=b"-5\r\nx", headers={"Transfer-Encoding": "chunked"}, cut=6
    ),
    "a redirect to an address that is none": lambda answer: Answer(
        b"", 302, {"Location": "http://["}
    ),
    "more rows than there are": lambda answer: Answer(
        json.dumps(json.loads(answer.body) | {"data": json.loads(answer.body)["data"] * 2}).encode()
    ),
    "meta of another kind": lambda answer: Answer(
        json.dumps(json.loads(answer.body) | {"meta": [1]}).encode()
    ),
    "HTML instead of JSON": lambda answer: Answer(b"<html><body>maintenance</body></html>"),
    "JSON of another kind": lambda answer: Answer(b"[1, 2]"),
    "an empty page before the end": lambda answer: Answer(
        json.dumps(json.loads(answer.body) | {"data": []}).encode()
    ),
    "a page that lacks a row": lambda answer: Answer(
        json.dumps(json.loads(answer.body) | {"data": json.loads(answer.body)["data"][1:]}).encode()
    ),
    "packed, and cut": lambda answer: packed(answer)._replace(cut=60),
    "said to be packed, but is not": lambda answer: answer._replace(
        headers={"Content-Encoding": "gzip"}
    ),
    "nested too deep": lambda answer: Answer(b"[" * 100_000),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_may_pass_is_asked_for_again_and_the_table_is_whole(
    serve, tmp_path, monkeypatch, fault, caplog
):
    caplog.set_level(logging.INFO)
    in_pages_of(monkeypatch, 4)
    server = serve(Oqmd(some_rows(10)))
    server.faults[1] = FAULTS[fault]
    table = fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    assert [row["material_id"] for row in read(table)] == [f"oqmd-{n}" for n in range(1, 11)]
    assert pages([request.path for request in server.requests]) == [0, 4, 4, 8]
    assert "attempt 2 of 6" in caplog.text


def test_a_service_that_stays_broken_is_one_sentence_and_the_pages_so_far_are_kept(
    serve, tmp_path, monkeypatch
):
    in_pages_of(monkeypatch, 4)
    server = serve(Oqmd(some_rows(10)))
    server.faults |= dict.fromkeys(range(1, 7), FAULTS["a 500"])
    with pytest.raises(UserError, match=r"offset=4&format=json answers 500 .*, 6 times"):
        fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    assert not list(tmp_path.glob("*.csv.xz"))
    assert len(read(fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi"))) == 10
    assert pages(server.completed[7:]) == [4, 8]  # the first page was not fetched again


@pytest.mark.parametrize(
    ("status", "asked", "least_s"),
    [
        (429, lambda: "1", 1.0),
        (
            503,
            lambda: email.utils.formatdate(time.time() + 2, usegmt=True),
            1.0,
        ),  # in whole seconds: between 1 and 2
        (429, lambda: email.utils.formatdate(time.time() - 60, usegmt=True), 0.0),
    ],
)
def test_a_service_that_asks_to_wait_is_waited_for(serve, tmp_path, status, asked, least_s):
    server = serve(Oqmd(some_rows(2)))
    server.faults[0] = lambda answer: Answer(b"", status, {"Retry-After": asked()})
    fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    first, second = (request.time for request in server.requests)
    assert least_s <= second - first < least_s + 1.5


def test_a_service_that_asks_for_an_hour_is_not_waited_for(serve, tmp_path):
    server = serve(Oqmd(some_rows(2)))
    server.faults[0] = lambda answer: Answer(b"", 429, {"Retry-After": "3600"})
    with pytest.raises(
        UserError,
        match=r"answers 429 .* asks to wait 3,600 s, more than 900 s; the same command after",
    ):
        fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    assert len(server.requests) == 1


def test_a_service_that_asks_to_wait_no_time_is_not_asked_at_once(serve, tmp_path):
    server = serve(Oqmd(some_rows(2)))
    server.faults |= dict.fromkeys(range(4), lambda answer: Answer(b"", 429, {"Retry-After": "0"}))
    fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    times = [request.time for request in server.requests]
    assert times[4] - times[0] > 0.5 * 0.02 * (1 + 2 + 4 + 8)


def test_what_a_service_says_does_not_steer_the_terminal(serve, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    server = serve(Oqmd(some_rows(2)))
    server.faults[0] = lambda answer: Answer(b"\x1b[2J\n", 200)
    server.faults[1] = lambda answer: Answer(b"", 302, {"Location": "http://[\x1b[2J"})
    fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    said = caplog.text
    assert "attempt 3 of 6" in said
    assert "\x1b" not in said


def test_waits_grow_and_are_not_all_alike(monkeypatch):
    waits = []
    monkeypatch.setattr(http.time, "sleep", waits.append)
    monkeypatch.delenv("IRNET_OFFLINE", raising=False)
    with (
        http.connect() as connection,
        pytest.raises(UserError, match=r"127\.0\.0\.1:9/ cannot be reached: .*, 6 times"),
    ):
        http.get(connection, "http://127.0.0.1:9/", bytes)  # nothing listens there
    assert len(waits) == 5
    for number, wait in enumerate(waits):
        assert (
            0.5 * 2 * 2**number <= wait <= 2 * 2**number
        )  # the backoff of 2 s, doubled, times 0.5 to 1


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
    # With the row in front, rows 5 to 8 are now those at offsets 5 to 8: mixed with the first page, one would come twice.
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
    assert "2 rows had the id of another one but other values and were left out" in notes
    assert "note: 1 rows came twice" in caplog.text


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
            "left out: a formula or an id of more than 1,000 characters" in n
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
    with pytest.raises(UserError, match="page 2 is page 1 again"):
        fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    assert len(server.requests) == 7


def test_a_table_that_is_not_the_one_that_was_downloaded_is_one_sentence(serve, tmp_path):
    table = fetch(resolve_source("oqmd", tmp_path), serve(Oqmd(some_rows(3))).url + "/oqmdapi")
    text = lzma.decompress(table.read_bytes())
    table.unlink()
    (tmp_path / "oqmd.csv").write_bytes(text)  # unpacked it is the same table
    assert load_table("oqmd", tmp_path).source.licence == "CC BY 4.0"
    (tmp_path / "oqmd.csv").write_bytes(text.replace(b"36.6", b"36.7", 1))
    with pytest.raises(UserError, match=r"oqmd\.about\.json describes another table .* sha256"):
        load_table("oqmd", tmp_path)


def test_a_field_that_is_gone_is_one_sentence_at_once(serve, tmp_path):
    service = Oqmd(some_rows(3))
    server = serve(
        lambda path, headers: Answer(service(path, headers).body.replace(b"delta_e", b"deltaE"))
    )
    with pytest.raises(
        UserError, match=r"have no delta_e: the service is not as it was; pack --probe"
    ):
        fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    assert len(server.requests) == 1


@pytest.mark.parametrize("bomb", [True, False])
def test_an_answer_that_is_too_large_is_not_taken_in(serve, tmp_path, monkeypatch, bomb):
    answer = Answer(b" " * 40 * 2**20)
    answer = (
        packed(answer) if bomb else answer
    )  # here, since it takes longer than the patience of FAST on a busy machine
    server = serve(lambda *_: answer)
    with (
        http.connect() as connection,
        pytest.raises(UserError, match="answers more than 4 MiB"),
    ):
        http.get(connection, server.url, bytes, max_bytes=4 * 2**20)
    assert len(server.requests) == 1


def test_an_answer_that_drips_for_ever_is_given_up(serve, monkeypatch):
    monkeypatch.setattr(http, "CHUNK", 16)
    server = serve(lambda *_: Answer(b" " * 1000))
    with (
        http.connect() as connection,
        pytest.raises(UserError, match="takes more than 0 s over one answer"),
    ):
        hasty = connection._replace(limits=connection.limits._replace(answer_s=0, attempts=2))
        http.get(hasty, server.url, bytes)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("oqmd.org", "--url must be http:// or https://, a host and a path, got 'oqmd.org'"),
        ("", "got ''"),
        ("file:///etc/passwd", "got 'file:///etc/passwd'"),
        ("http://[", r"got 'http://\['"),
        ("http://127.0.0.1:9/x?y=1", r"got 'http://127.0.0.1:9/x\?y=1'"),
        (
            "http://me:secret@127.0.0.1:9/x",
            "a host and a path; a name and a password for it belong in ~/.netrc$",
        ),
    ],
)
def test_an_address_that_is_none_is_one_sentence(serve, tmp_path, url, sentence):
    with pytest.raises(UserError, match=sentence):
        fetch(resolve_source("oqmd", tmp_path), url)
    assert list(tmp_path.iterdir()) == []


def test_offline_forbids_with_one_sentence_and_asks_nobody(serve, pack_command, tmp_path):
    server = serve(Oqmd(some_rows(3)))
    done = pack_command("--source", "oqmd", "--url", server.url + "/oqmdapi", "--data-dir", "here")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no raw table of oqmd in here/: looked for oqmd.csv")
    assert done.stderr.endswith("; IRNET_OFFLINE forbids to download it\n")
    done = pack_command("--source", "matminer:expt_gap", "--data-dir", "here")
    assert done.stderr.startswith(
        "error: no raw table of matminer:expt_gap in here/: looked for matminer-expt_gap.csv"
    )
    assert done.stderr.endswith("; IRNET_OFFLINE forbids to download it\n")
    done = pack_command("--probe", "oqmd", "--url", server.url + "/oqmdapi")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: IRNET_OFFLINE forbids the network, which http://127.0.0.1"
    )
    assert server.requests == []


@pytest.mark.parametrize(
    ("variable", "value"), [("IRNET_TIMEOUT_S", "soon"), ("IRNET_BACKOFF_S", "-1")]
)
def test_a_wait_that_is_no_number_is_one_sentence(serve, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(
        UserError, match=f"{variable} must be a number of seconds above 0, at most 3600, got "
    ):
        http.http_limits()


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen:
    own = {
        "PYTHONPATH": str(ROOT),
        "IRNET_TIMEOUT_S": "60",
        "IRNET_DATA": "data",
        "IRNET_PACKS": "packs",
    }
    environment = os.environ | FAST | own
    command = [
        sys.executable,
        "-m",
        "irnet_hpc.pack",
        "--features",
        "elements",
        "--workers",
        "1",
        *arguments,
    ]
    return subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(true, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_download_killed_at_once_goes_on_where_it_stopped_and_no_page_is_fetched_twice(
    serve, tmp_path
):
    server = serve(
        Oqmd(some_rows(30), most=3)
    )  # asked for 2,000 rows a page it gives 3, so 10 pages
    server.hold.clear()
    server.hold_from = 6
    command = ("--source", "oqmd", "--url", server.url + "/oqmdapi")
    process = start(tmp_path, *command)
    wait_until(lambda: len(server.requests) == 7)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(list((tmp_path / "data/.oqmd.download").glob("[0-9]*.json.gz"))) == 6
    assert not list((tmp_path / "data").glob("*.csv*"))
    bad = sorted((tmp_path / "data/.oqmd.download").glob("000004-*"))[0]
    bad.write_bytes(bad.read_bytes()[:-5])  # as a disk might leave it
    completed = list(server.completed)
    server.hold.set()
    output, errors = start(tmp_path, *command).communicate(timeout=600)
    assert "5 of 6 pages of an earlier download are sound and kept" in output, errors
    assert pages(completed) == [0, 3, 6, 9, 12, 15]
    again = pages([request.path for request in server.requests[7:]])
    assert again == [
        12,
        18,
        21,
        24,
        27,
    ]  # the page that went bad, the one that was not answered, and the rest
    assert len(read(tmp_path / "data/oqmd.csv.xz")) == 30
    assert not (tmp_path / "data/.oqmd.download").exists()
    with open_pack(tmp_path / "packs/oqmd-elements.h5") as pack:
        assert pack.n_rows == 30
        assert pack.attrs["licence"] == "CC BY 4.0"


def test_two_downloads_of_one_table_do_not_collide(serve, tmp_path):
    server = serve(Oqmd(some_rows(12), most=3))
    server.hold.clear()
    server.hold_from = 2
    command = ("--source", "oqmd", "--url", server.url + "/oqmdapi")
    first = start(tmp_path, *command, "--name", "first")
    wait_until(lambda: len(server.requests) == 3)
    second = start(tmp_path, *command, "--name", "second")
    lines = iter(second.stdout.readline, "")
    assert any("another process downloads oqmd; waiting for it" in line for line in lines)
    server.hold.set()
    for process in (first, second):
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    assert pages([request.path for request in server.requests]) == [0, 3, 6, 9]
    assert (tmp_path / "packs/first.h5").exists()
    assert (tmp_path / "packs/second.h5").exists()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "oqmd.about.json",
        "oqmd.csv.xz",
    ]


def test_who_waited_for_a_folder_that_is_gone_locks_the_new_one(tmp_path):
    held = threading.Event()
    order = []

    def waits() -> None:
        held.wait()
        with locked(tmp_path, "oqmd") as work, (work / "lock").open("a") as file:
            order.append("second")
            with pytest.raises(
                BlockingIOError
            ):  # the lock of the folder that is there now is the one that is held
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    thread = threading.Thread(target=waits)
    thread.start()
    with locked(tmp_path, "oqmd"):
        held.set()
        time.sleep(0.3)
        order.append("first")
    thread.join(600)
    assert order == ["first", "second"]


@pytest.mark.parametrize("table", ["there", "removed"])
def test_what_a_download_leaves_that_was_killed_at_its_end_is_not_used(
    serve, tmp_path, monkeypatch, table
):
    in_pages_of(monkeypatch, 4)
    server = serve(Oqmd(some_rows(10)))
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    assert len(list((tmp_path / ".oqmd.download").glob("*.json.gz"))) == 3
    if table == "removed":  # by someone who wants it as it is now
        (tmp_path / "oqmd.csv.xz").unlink()
    ensure(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["oqmd.about.json", "oqmd.csv.xz"]
    assert len(server.requests) == (3 if table == "there" else 6)


def test_a_disk_that_is_full_is_one_sentence_that_names_the_file(tmp_path):
    with (
        pytest.raises(OSError, match=r"No space left on device: .*/oqmd\.csv\.xz"),
        replacing(tmp_path / "oqmd.csv.xz"),
    ):
        Path("/dev/full").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_another_address_or_another_query_discards_the_pages(serve, tmp_path, monkeypatch):
    in_pages_of(monkeypatch, 4)
    first, second = serve(Oqmd(some_rows(10))), serve(Oqmd(some_rows(6)))
    first.faults[1] = lambda answer: Answer(b"", 404)
    with pytest.raises(UserError, match="404"):
        fetch(resolve_source("oqmd", tmp_path), first.url + "/oqmdapi")
    table = fetch(resolve_source("oqmd", tmp_path), second.url + "/oqmdapi")
    assert len(read(table)) == 6
    assert pages([request.path for request in second.requests]) == [0, 4]


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
        "1 rows left out: the structure has not as many sites as natoms says",
    }
    loaded = load_table("oqmd-sc", tmp_path, structures=True)
    assert loaded.table.formula == ["CsCl", "He"]
    assert list(loaded.table.crystals.n_sites) == [2, 2]


def test_formulas_only_do_not_give_structures(serve, tmp_path):
    with pytest.raises(
        UserError, match="oqmd has formulas only; those that have them: oqmd-sc, mp, jarvis"
    ):
        fetch(resolve_source("oqmd", tmp_path), structures=True)


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


@pytest.fixture
def encrypted(tmp_path, serve):
    """Starts a server that speaks TLS with a certificate of its own; returns it and the certificate."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("no openssl here to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )

    def start(answer):
        server = serve(answer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
        server.url = server.url.replace("http:", "https:")
        return server

    return start, certificate


def test_a_service_must_prove_who_it_is_and_may_not_lead_to_one_that_need_not(
    encrypted, serve, tmp_path, monkeypatch
):
    start, certificate = encrypted
    service = Oqmd(some_rows(3))
    server = start(service)
    with pytest.raises(
        UserError,
        match=r"does not prove who it is \(.*certificate.*\); give another address with --url",
    ):
        fetch(resolve_source("oqmd", tmp_path / "data"), server.url + "/oqmdapi")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert len(read(fetch(resolve_source("oqmd", tmp_path / "data"), server.url + "/oqmdapi"))) == 3
    plain = serve(service)
    leads = start(lambda path, _: Answer(b"", 302, {"Location": plain.url + path}))
    with pytest.raises(UserError, match=r"leads to http://127\..*, which is not encrypted"):
        fetch(resolve_source("oqmd", tmp_path / "other"), leads.url + "/oqmdapi")
    back = serve(lambda path, _: Answer(b"", 302, {"Location": server.url + path}))
    leads = start(lambda path, _: Answer(b"", 302, {"Location": back.url + path}))
    with pytest.raises(
        UserError, match=r"leads to http://127\..*, which is not encrypted"
    ):  # though it comes back
        fetch(resolve_source("oqmd", tmp_path / "other"), leads.url + "/oqmdapi")
