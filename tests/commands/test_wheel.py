"""Test that a wheel is whole: in a fresh environment it goes from a table to predictions."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from irnet_hpc.files import read_json

ROOT = Path(__file__).parents[2]
TINY = "{name: tiny, base: onecycle, epochs: 2, batch: 32, norm_group: 32, precision: fp32}"
MATRIX = f"""
packs: [alloys-elements-n200]
properties: [mixing_enthalpy]
models: [16BARx1-1]
recipes: [{TINY}]
seeds: [0, 1]
resources: {{minutes: 1}}
"""

pytestmark = pytest.mark.slow


def checked(command: list[str | Path], folder: Path) -> str:
    """Run a command in a folder, far from the repository; return what it prints."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("IRNET_", "SLURM_")) and name != "PYTHONPATH"
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment | {"IRNET_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Return a wheel built from a copy of the tracked files, without the network."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    for name in listing.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    checked([*pip, "--no-index", "--wheel-dir", target], source)
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """Return a fresh environment's Python with the wheel and, by a .pth file, our libraries."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    variables = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", variables))
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "libraries.pth").write_text("\n".join(sorted(ours)) + "\n")
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    checked([*pip, "--force-reinstall", wheel], folder)
    return python


def test_the_wheel_holds_every_file_of_the_package(wheel):
    tracked = subprocess.run(
        ["git", "ls-files", "irnet_hpc"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    expected = {name for name in tracked.stdout.splitlines() if (ROOT / name).is_file()}
    with zipfile.ZipFile(wheel) as archive:
        assert expected - set(archive.namelist()) == set()
    assert "irnet_hpc/py.typed" in expected


def test_the_installed_wheel_goes_from_a_table_to_predictions(python, tmp_path):
    where = checked([python, "-c", "import irnet_hpc; print(irnet_hpc.__file__)"], tmp_path)
    assert str(python.parents[1]) in where
    command = [python, "-m"]
    pack = ["--source", "alloys", "--rows", "200", "--features", "elements"]
    checked([*command, "irnet_hpc.pack", *pack], tmp_path)
    (tmp_path / "m.yaml").write_text(MATRIX)
    checked([*command, "irnet_hpc.sweep", "run", "m.yaml"], tmp_path)
    checked([*command, "irnet_hpc.aggregate", "results", "--html", "report.html"], tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<style" in page and "<script" in page and "mixing_enthalpy" in page
    (tmp_path / "formulas.csv").write_text("formula\nAlNiTi\nFeCo\n")
    runs = sorted((tmp_path / "results").glob("**/seed*"))
    assert len(runs) == 2
    predict = [*command, "irnet_hpc.predict", *runs, "formulas.csv", "-o", "predictions.csv"]
    checked(predict, tmp_path)
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 3
    assert read_json(tmp_path / "predictions.csv.about.json")
    assert "irnet_hpc" in checked([python.with_name("irnet_hpc"), "--help"], tmp_path)


def test_the_installed_wheel_lays_down_matrices_scripts_and_sites(python, tmp_path):
    checked([python, "-m", "irnet_hpc.sweep", "init", "mine"], tmp_path)
    tracked = subprocess.run(
        ["git", "ls-files", "jobs", "slurm", "env/sites"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in tracked.stdout.splitlines():
        assert (tmp_path / "mine" / name).read_bytes() == (ROOT / name).read_bytes(), name
    matrix = tmp_path / "mine/jobs/smoke.yaml"
    assert "8 cells" in checked([python, "-m", "irnet_hpc.sweep", "plan", matrix], tmp_path)
