"""Probes of services as documented, and of others."""

import pytest

from irnet_hpc.data.download.probe import probe_source
from irnet_hpc.errors import UserError
from tests.data.download.services import ENTRIES, GAPS
from tests.data.http_server import CSCL, FAST, Aflux, Answer, Oqmd, some_rows


def test_probe_agrees_with_a_service_as_documented_and_says_what_differs(serve, pack_command):
    good = Oqmd(some_rows(30))
    good.total = 1_200_000
    server = serve(good)
    done = pack_command("--probe", "oqmd", "--url", server.url + "/oqmdapi", **FAST)
    assert (done.returncode, done.stdout) == (0, "oqmd answers as expected\n"), done.stderr
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
        "30 rows in all, though 600,000 to 2,500,000 were expected "
        "(2026-11: 0.7 million in 2019, above 1.2 million since 2023)",
        "fields that were not expected: chi",
        "band_gap is not a number in 20 rows, e.g. 'wide'",
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
