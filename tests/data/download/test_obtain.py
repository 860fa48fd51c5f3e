"""Downloads that are not needed, or not allowed."""

import lzma

import pytest

from irnet_hpc.data.download.obtain import fetch
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from tests.builders import load_table
from tests.data.http_server import Oqmd, some_rows


def test_a_table_that_is_not_the_one_that_was_downloaded_is_one_sentence(serve, tmp_path):
    table = fetch(resolve_source("oqmd", tmp_path), serve(Oqmd(some_rows(3))).url + "/oqmdapi")
    text = lzma.decompress(table.read_bytes())
    table.unlink()
    (tmp_path / "oqmd.csv").write_bytes(text)  # unpacked it is the same table
    assert load_table("oqmd", tmp_path).source.licence == "CC BY 4.0"
    (tmp_path / "oqmd.csv").write_bytes(text.replace(b"36.6", b"36.7", 1))
    with pytest.raises(UserError, match=r"oqmd\.about\.json describes a different table .* sha256"):
        load_table("oqmd", tmp_path)


def test_offline_forbids_with_one_sentence_and_asks_nobody(serve, pack_command, tmp_path):
    server = serve(Oqmd(some_rows(3)))
    done = pack_command("--source", "oqmd", "--url", server.url + "/oqmdapi", "--data-dir", "here")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no raw table of oqmd was found in here/ (looked for ")
    assert done.stderr.endswith("; IRNET_OFFLINE forbids downloading it\n")
    done = pack_command("--source", "matminer:expt_gap", "--data-dir", "here")
    assert done.stderr.startswith(
        "error: no raw table of matminer:expt_gap was found in here/ (looked for matminer-expt"
    )
    assert done.stderr.endswith("; IRNET_OFFLINE forbids downloading it\n")
    done = pack_command("--probe", "oqmd", "--url", server.url + "/oqmdapi")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: IRNET_OFFLINE forbids the network, which http://127.0.0.1"
    )
    assert server.requests == []


def test_formulas_only_do_not_give_structures(serve, tmp_path):
    with pytest.raises(
        UserError, match="oqmd has formulas only; those that have them: oqmd-sc, mp, jarvis"
    ):
        fetch(resolve_source("oqmd", tmp_path), structures=True)
