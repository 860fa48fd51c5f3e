"""Files that were cut, damaged or replaced."""

import pytest

from irnet_hpc.data.download import http
from irnet_hpc.data.download.obtain import fetch
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from tests.data.download.services import GAPS, read
from tests.data.http_server import Answer


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
