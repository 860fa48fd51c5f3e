"""Small wheels in the form of CrabNet's and Matbench's, and a package index on loopback."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

from irnet_hpc.data.benchmarks import CRABNET_TABLES
from irnet_hpc.data.download.wheels import Wheel
from tests.data.http_server import Answer

Parts = Mapping[str, Mapping[str, str]]  # part -> formula -> value


class MadeWheel(NamedTuple):
    """A wheel and its bytes."""

    wheel: Wheel
    body: bytes


def make_wheel(project: str, version: str, files: Mapping[str, str]) -> MadeWheel:
    """Build a wheel that pip accepts."""
    info = f"{project}-{version}.dist-info"
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n"
        "Requires-Python: >=3.7,<3.8\nRequires-Dist: no-such-project\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    # Reading the wheel must run nothing of it.
    code = {f"{project}/__init__.py": "raise RuntimeError('imported')\n"}
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**code, **files, **about}.items():
            archive.writestr(name, text)
    content = body.getvalue()
    return MadeWheel(
        Wheel(project, version, hashlib.sha256(content).hexdigest(), len(content)), content
    )


def crabnet_wheel(tables: Mapping[str, Parts], tasks: Mapping[str, list]) -> MadeWheel:
    """Build CrabNet's wheel.

    Args:
        tables: name -> part -> formula -> value; other tables of OQMD are empty.
        tasks: name of a file of Matbench -> (formula, value) of each row.
    """
    files = {}
    empty = {name: {} for name in CRABNET_TABLES if name.startswith("OQMD")}
    for name, parts in (empty | dict(tables)).items():
        for part in ("train", "val", "test"):
            files[f"crabnet/data/benchmark_data/{name}/{part}.csv"] = table_text(
                parts.get(part, {}).items()
            )
    for name, rows in tasks.items():
        files[f"crabnet/data/matbench/{name}.csv"] = table_text(rows)
    return make_wheel("crabnet", "2.0.8", files)


def matbench_wheel(task: str, folds: list[list[str]]) -> MadeWheel:
    """Build Matbench's wheel with the ids that each fold of one task tests."""
    splits = {
        f"matbench_{task}": {f"fold_{k}": {"train": [], "test": ids} for k, ids in enumerate(folds)}
    }
    text = json.dumps({"splits": splits})
    return make_wheel("matbench", "0.6", {"matbench/matbench_v0.1_validation.json": text})


def table_text(rows) -> str:
    """Write rows as the wheels have them."""
    return "".join(f"{formula},{value}\n" for formula, value in [("formula", "target"), *rows])


class Index:
    """Answer as a package index does (PEP 503)."""

    def __init__(self, *made: MadeWheel):
        self.files = {one.wheel.file_name: one for one in made}

    def __call__(self, path: str, headers: dict[str, str]) -> Answer:
        name = path.rstrip("/").rpartition("/")[2]
        html = {"Content-Type": "text/html"}
        if path.startswith("/simple/"):
            known = [file for file, one in self.files.items() if one.wheel.project == name]
            links = "".join(f'<a href="/files/{file}">{file}</a>' for file in known)
            return Answer(links.encode(), 200, html) if known else Answer(b"none", 404, html)
        if name not in self.files:
            return Answer(b"no such file", 404, html)
        body = self.files[name].body
        return Answer(body, headers={"Content-Type": "application/zip"})
