"""Downloads that were killed, or run twice at once."""

import fcntl
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from irnet_hpc.data.download.obtain import ensure, fetch
from irnet_hpc.data.download.work_folder import locked
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from irnet_hpc.files import replacing
from irnet_hpc.pack.store import open_pack
from tests.data.download.services import in_pages_of, read, start
from tests.data.http_server import Answer, Oqmd, pages, some_rows

ROOT = Path(__file__).parents[3]


def wait_until(true, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_download_resumes_and_no_page_is_fetched_twice(serve, tmp_path):
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
    assert any(
        "another process is downloading oqmd; waiting until it ends" in line for line in lines
    )
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
