"""Build the stand-in for GPUs, and run programs on it; docs/testing_gpus.md describes both."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Prints torch's CUDA version and the folder of torch's CUDA headers, without importing torch.
PROBE = """
import importlib.util, json, pathlib, runpy
torch = importlib.util.find_spec("torch")
version = torch and runpy.run_path(pathlib.Path(torch.origin).with_name("version.py"))["cuda"]
wheels = importlib.util.find_spec("nvidia")
places = wheels.submodule_search_locations if wheels else ()
print(json.dumps([version, [f"{place}/cu13/include" for place in places]]))
"""


class NotHere(Exception):
    """The stand-in cannot be built here; the message says why."""


@dataclasses.dataclass(frozen=True)
class StandIn:
    """A library that stands for the GPUs of this machine, and a Python whose torch has CUDA."""

    library: Path
    python: str

    def start(
        self, *arguments: object, gpus: int = 1, gb: float = 141, **variables: object
    ) -> subprocess.Popen:
        """Start Python with `arguments` on a machine of `gpus` GPUs of `gb` GB each."""
        environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        environment |= {
            "LD_PRELOAD": str(self.library),
            "FAKE_GPU_COUNT": str(gpus),
            "FAKE_GPU_GB": str(gb),
            "OMP_NUM_THREADS": "1",
            # Kernels compute nothing, so those of Triton are not compared with torch's.
            "IRNET_FUSED": "unchecked",
            # Triton 3.7.1 links its launcher with the library in this folder.
            "TRITON_LIBCUDA_PATH": str(self.library.parent),
            "TRITON_CACHE_DIR": str(self.library.with_name("triton")),
        }
        environment |= {name: str(value) for name, value in variables.items()}
        return subprocess.Popen(
            [self.python, *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: object, status: int = 0, **keywords: object
    ) -> subprocess.CompletedProcess:
        """Run Python as `start` does, and check its exit status."""
        return ended(self.start(*arguments, **keywords), status)  # type: ignore[arg-type]

    def json(self, *arguments: object, **keywords: object) -> dict:
        """Run Python, and return the JSON of the last line that it prints."""
        return json.loads(self.run(*arguments, **keywords).stdout.splitlines()[-1])


def ended(process: subprocess.Popen, status: int | None = 0) -> subprocess.CompletedProcess:
    """Wait for a process, and check its exit status, if `status` is not None."""
    out, err = process.communicate(timeout=600)
    assert status in (None, process.returncode), f"status {process.returncode}\n{out}\n{err}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def build(folder: Path) -> StandIn:
    """Compile the stand-in into a folder.

    Raises:
        NotHere: If there is no torch with CUDA 13, or no compiler.
    """
    python = os.environ.get("IRNET_CUDA_PYTHON") or sys.executable
    probed = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=True)
    cuda, headers = json.loads(probed.stdout)
    if not (cuda or "").startswith("13."):
        raise NotHere(
            f"torch of {python} must be a build for CUDA 13, got CUDA {cuda}; "
            "IRNET_CUDA_PYTHON names another Python"
        )
    found = [path for path in headers if Path(path, "cuda_runtime_api.h").is_file()]
    if not found:
        raise NotHere("there are no headers of CUDA: pip install nvidia-cuda-runtime")
    if not shutil.which("g++"):
        raise NotHere("there is no g++")
    library = folder / "libcuda.so.1"
    command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Werror"]
    command += [f"-I{found[0]}", f"-I{HERE}", "-Wl,-soname,libcuda.so.1", "-o", library]
    subprocess.run([*command, *sorted(HERE.glob("*.cpp")), "-ldl", "-lrt", "-lpthread"], check=True)
    return StandIn(library, python)
