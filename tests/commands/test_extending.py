"""Add the rows of docs/extending.md to a copy of the package, then pack and train with them."""

import csv
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from irnet_hpc.pack import store
from tests.commands.test_docs import blocks

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extending.md"
N_ROWS = 200


def rows_of_the_page() -> list[tuple[str, str, str]]:
    """List (file, the line that opens the table, the row) of each addition on the page."""
    added = re.findall(
        r"^# (irnet_hpc/[\w/]+\.py): (\w+ = \{)\n(    .+)$",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(added) == 4
    return added


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """Return a folder where the extended package has run the page's commands on a new source."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(
        ROOT / "irnet_hpc", folder / "irnet_hpc", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name, opening, row in rows_of_the_page():
        path = folder / name
        text = path.read_text(encoding="utf-8")
        assert text.count(f"\n{opening}\n") == 1, f"{name} has no table that opens with {opening}"
        path.write_text(text.replace(f"\n{opening}\n", f"\n{opening}\n{row}\n"), encoding="utf-8")
    (folder / "data").mkdir()
    with (folder / "data/melts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["formula", "melting_point"])
        writer.writerows([f"Ti{n}Ni{N_ROWS + 1 - n}", 1500 + 2 * n] for n in range(1, N_ROWS + 1))
    (commands,) = (block for block in blocks(PAGE) if "--source melts" in block.text)
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    environment = {
        name: value
        for name, value in environment.items()
        if name not in ("IRNET_DATA", "IRNET_PACKS")
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands.text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_a_row_adds_a_property_with_its_unit_and_a_source_with_its_licence(extended):
    with store.open_pack(extended / "packs/melts-elements.h5") as pack:
        assert pack.units == {"melting_point": "K"}
        assert (pack.n_rows, pack.attrs["licence"]) == (N_ROWS, "CC BY 4.0")
        assert sorted(pack.y("melting_point", slice(0, N_ROWS))) == list(
            np.arange(1502.0, 1902.0, 2)
        )


def test_a_row_adds_an_architecture_and_another_a_depth(extended):
    (path,) = (extended / "results").rglob("result.json")
    result = json.loads(path.read_text())
    assert path.parts[-5] == "irdrop-5"
    assert result["unit"] == "K"
    # By hand: weights and biases, two numbers for each normalised column, and a projection where
    # the width changes.
    first, second = (86 + 1) * 64 + 2 * 64 + (86 + 1) * 64, (64 + 1) * 64 + 2 * 64
    third, fourth = (64 + 1) * 32 + 2 * 32 + (64 + 1) * 32, (32 + 1) * 32 + 2 * 32
    assert result["n_parameters"] == first + second + third + fourth + (32 + 1)


def test_the_new_source_is_in_the_list(extended):
    command = ["python", "-m", "irnet_hpc.pack", "--list"]
    environment = {**os.environ, "PYTHONPATH": str(extended)}
    environment.pop("IRNET_DATA", None)
    listed = subprocess.run(
        command, cwd=extended, env=environment, capture_output=True, text=True, check=True
    ).stdout
    (entry,) = (entry for entry in listed.split("\n\n") if entry.startswith("melts\n"))
    assert "melting_point (K)" in entry
    assert "put here yourself" in entry
    assert "data/melts.csv" in entry
