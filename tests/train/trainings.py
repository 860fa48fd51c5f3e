"""Trainings for tests: by the command in a process of its own, and in this process."""

import subprocess
import sys
from pathlib import Path

import torch

from irnet_hpc.distributed.engines import Alone
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.runs.spec import RunSpec, model_of
from irnet_hpc.train.dataset import load
from tests import builders

CPU = torch.device("cpu")


QUICK = "{name: quick, base: onecycle, epochs: 4, batch: 64, norm_group: 32, precision: fp32}"


def command(pack: Path | str, results: Path, /, **changes) -> list[str]:
    options = {
        "pack": pack,
        "property": "mixing_enthalpy",
        "layers": "64BARx2-32BAx2R-1",
        "recipe": QUICK,
    } | changes
    flags = [
        part
        for name, value in options.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
        if value
    ]
    return [sys.executable, "-m", "irnet_hpc.train", *flags, "--results", str(results)]


def run(*arguments, **changes) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments, **changes), capture_output=True, text=True, timeout=600
    )


def in_process(pack_file: Path, path: Path, layers: str = "32BARx2-1", **changes):
    """One training in this process: (network, state)."""
    torch.set_num_threads(1)
    recipe = resolve(
        {
            "name": "t",
            "base": "onecycle",
            "precision": "fp64",
            "batch": 64,
            "norm_group": 32,
            "epochs": 3,
        }
        | changes
    )
    spec = RunSpec("pack", "mixing_enthalpy", **model_of(layers))
    with open_pack(pack_file) as pack:
        data = load(pack, spec, recipe, CPU)
    return builders.train(spec, recipe, "key", data, path, Alone(), CPU)
