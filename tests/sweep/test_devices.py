"""Cells that ask for GPUs are trained on GPUs or not at all."""

import itertools

import pytest

from irnet_hpc.runs.classical_grids import USES_GPU
from irnet_hpc.sweep.cell_states import read_ledger
from irnet_hpc.sweep.jobs import train_options

MATRIX = """
packs: [alloys-magpie]
properties: [mixing_enthalpy]
models: [irnet-17, ridge, tabm]
resources: %s
"""


def devices(place, resources: str, site_gpus: int) -> dict[str, str]:
    """Map each model to the device that its command names, or to `auto`."""
    place.path.write_text(MATRIX % resources)
    found = {}
    for status in read_ledger(place.matrix, place.results).cells:
        options = train_options(status, place.results, None, site_gpus=site_gpus)
        stated = dict(itertools.pairwise(options)).get("--device", "auto")
        found[status.cell.spec.model] = stated
    return found


@pytest.mark.parametrize(
    ("resources", "site_gpus", "device"),
    [
        ("{gpus_per_rank: 1}", 0, "cuda"),
        ("{minutes: 9}", 1, "cuda"),
        ("{minutes: 9}", 0, "auto"),
        ("{cpu_only: true}", 1, "auto"),
    ],
)
def test_a_cell_that_asks_for_a_gpu_names_it_as_its_device(place, resources, site_gpus, device):
    assert "tabm" in USES_GPU and "ridge" not in USES_GPU
    expected = {"irnet-17": device, "tabm": device, "ridge": "auto"}
    assert devices(place, resources, site_gpus) == expected
