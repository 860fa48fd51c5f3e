"""env/cuda.sh finds an nvcc that fits torch, or gets one, and says so where that fails."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What env/setup.sh has defined where it sources env/cuda.sh.
SETUP = """
set -euo pipefail
accelerator=%s CACHE=$PWD/cache LOG=$PWD/log python=$PWD/bin/python DEFAULT_CUDA=$PWD/none
mkdir -p cache; exec 9>lock
say() { printf '%%s\\n' "$*"; }
torch_fact() { case $1 in cuda) echo %s ;; *) echo 2.13.0 ;; esac; }
source %s/env/cuda.sh
"""
NVCC = """
case $* in
--version) echo 'Cuda compilation tools, release %s, V1' ;;
*--dryrun*) echo '#$ TOP=%s' >&2 ;;
esac
"""
# Stands for `python -m pip install --target FOLDER ...`, and counts its calls.
PIP = """
echo called >>pip-calls
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/nvidia/cu13/bin" "$2/nvidia/cu13/lib"
touch "$2/nvidia/cu13/lib/libcudart.so.13"
printf '#!/bin/sh\\necho release %s,\\n' >"$2/nvidia/cu13/bin/nvcc"
chmod +x "$2/nvidia/cu13/bin/nvcc"
"""


class Machine:
    """A folder with commands, in which lines of shell are run after env/cuda.sh is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        self.add("python", "exit 1")

    def add(self, name: str, lines: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)

    def run(self, lines: str, accelerator: str = "cuda", cuda: str = "13.0") -> tuple[str, str]:
        script = SETUP % (accelerator, cuda or "''", ROOT) + lines
        variables = {"PATH": f"{self.folder}/bin:/usr/bin:/bin", "HOME": str(self.folder)}
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=variables,
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        return done.stdout.strip(), done.stderr.strip()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_an_nvcc_of_torchs_cuda_is_taken_from_where_it_lives(machine):
    home = machine.folder / "cuda"
    home.mkdir()
    machine.add("nvcc", NVCC % ("13.1", home))
    assert machine.run("find_cuda") == (str(home), "")


@pytest.mark.parametrize("release", [None, "12.4"])
def test_without_an_nvcc_of_torchs_cuda_pip_brings_one_once(machine, release):
    if release:
        machine.add("nvcc", NVCC % (release, "/nowhere"))
    machine.add("python", PIP % "13.0")
    homes = {machine.run("find_cuda")[0] for _ in range(2)}
    home = machine.folder / "cache/nvcc-13.0/nvidia/cu13"
    assert homes == {str(home)}
    assert (home / "lib64/libcudart.so").resolve().name == "libcudart.so.13"
    assert (machine.folder / "pip-calls").read_text().split() == ["called"]


# No network; and a package that is not what it should be.
@pytest.mark.parametrize("pip", ["exit 1", PIP % "12.9"])
@pytest.mark.parametrize("release", [None, "12.4"])
def test_where_pip_brings_none_either_one_line_says_what_that_means(machine, release, pip):
    if release:
        machine.add("nvcc", NVCC % (release, "/nowhere"))
    machine.add("python", pip)
    home, said = machine.run("find_cuda")
    (note,) = [line for line in said.splitlines() if line.startswith("note: ")]
    assert home == "" and "13.0" in note and "--engine torch" in note
    assert ("12.4" in note) == bool(release)


def test_an_environment_for_processors_asks_for_no_nvcc(machine):
    assert machine.run("find_cuda", accelerator="cpu") == ("", "")
    home, said = machine.run("find_cuda", cuda="")
    assert home == "" and said.startswith("note: this torch has no CUDA")


@pytest.mark.parametrize(
    ("heading", "is_too_old"),
    [
        ("| NVIDIA-SMI 550.54    Driver Version: 550.54    CUDA Version: 12.4   |", True),
        ("| NVIDIA-SMI 580.65    Driver Version: 580.65    CUDA Version: 13.0   |", False),
        ("NVIDIA-SMI has failed because it couldn't communicate with the driver.", False),
    ],
)
def test_a_driver_that_is_too_old_for_torch_is_one_line(machine, heading, is_too_old):
    machine.add("nvidia-smi", f'echo "{heading}"')
    said, _ = machine.run("check_driver")
    assert len(said.splitlines()) == is_too_old
    assert ("12.4" in said) == is_too_old


def test_the_architectures_are_those_of_the_gpus_here(machine):
    assert machine.run("compute_capabilities")[0] == "80,90"
    machine.add("nvidia-smi", "echo 9.0; echo 8.0; echo 9.0")
    assert machine.run("compute_capabilities")[0] == "80,90"
    machine.add("nvidia-smi", "echo 8.9; echo '[N/A]'")
    assert machine.run("compute_capabilities")[0] == "89"


def test_nccl_is_staged_in_a_folder_that_stays(machine):
    wheel = machine.folder / "site/nvidia/nccl"
    (wheel / "lib").mkdir(parents=True)
    (wheel / "include").mkdir()
    (wheel / "lib/libnccl.so.2").touch()
    machine.add("python", f"echo {wheel}")
    said, _ = machine.run('stage_nccl "$CACHE/nccl/key"; echo "$HOROVOD_NCCL_HOME"')
    staged = Path(said)
    assert staged.is_relative_to(machine.folder / "cache")
    assert (staged / "lib/libnccl.so").resolve() == wheel / "lib/libnccl.so.2"
