"""Fixtures of the tests of downloads."""

import hashlib

import pandas as pd
import pytest
from matminer.utils.io import store_dataframe_as_json

from irnet_hpc.data.download import matminer_columns
from tests.data.http_server import Files


@pytest.fixture
def datasets(serve, tmp_path, monkeypatch):
    """Serve small datasets in matminer's own file format; its metadata get their hash and rows."""
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
