"""Hold how a machine is divided among workers, and which cell is next."""

import os
from types import SimpleNamespace

import pytest

from irnet_hpc.distributed import memory
from irnet_hpc.errors import UserError
from irnet_hpc.runs.recipes import RECIPES
from irnet_hpc.sweep import places
from irnet_hpc.sweep.agenda import Agenda
from irnet_hpc.sweep.places import Place, cores_in, gpus_here, places_here, share_out


def cell(name: str = "a", pack: str = "p", origin: str | None = None, **resources):
    """A status with the fields that an agenda and the places read."""
    resources = {"cpus_per_rank": 1, "n_ranks": 1, "cpu_only": False} | resources
    layers = "64BARx2-1" if name == "small" else "1024BARx4-1"
    spec = SimpleNamespace(pack=pack, model=name, layer_string=layers)
    inner = SimpleNamespace(
        spec=spec, resources=SimpleNamespace(**resources), recipe=RECIPES["onecycle"]
    )
    return SimpleNamespace(name=name, origin=origin, cell=inner)


@pytest.fixture
def machine(monkeypatch):
    """A machine of 16 cores in two domains, with whatever `given` says."""
    given = {"cores": set(range(16)), "gpus": [], "quota": (None, None)}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: given["cores"])
    monkeypatch.setattr(places, "gpus_here", lambda environment: given["gpus"])
    monkeypatch.setattr(memory, "cgroup_limits", lambda: given["quota"])
    monkeypatch.setattr(memory, "free_bytes", lambda environment: 64 * 2**30)
    even, odd = set(range(0, 16, 2)), set(range(1, 16, 2))
    monkeypatch.setattr(places, "numa_nodes", lambda: [even, odd])
    return given


def test_there_are_as_many_workers_as_the_cores_allow_each_in_one_domain(machine):
    found = places_here("auto", [cell(cpus_per_rank=4)] * 9, {})
    assert [place.cores for place in found.all] == [
        (0, 2, 4, 6),
        (8, 10, 12, 14),
        (1, 3, 5, 7),
        (9, 11, 13, 15),
    ]
    assert found.memory_gb == 64 and {place.gpus for place in found.all} == {None}
    # The user's own number of threads, and fewer cells than cores.
    assert len(places_here("auto", [cell()] * 99, {"OMP_NUM_THREADS": "8,2"}).all) == 2
    assert len(places_here("auto", [cell(), cell(n_ranks=4)], {}).all) == 5
    assert places_here("auto", [cell()], {}).all == (Place(1),)
    assert len(places_here(3, [cell()] * 9, {}).all) == 3
    # A small network has one thread, so that four times as many fit.
    assert len(places_here("auto", [cell("small", cpus_per_rank=4)] * 99, {}).all) == 16


def test_workers_are_not_bound_to_cores_of_others(machine):
    machine["quota"] = (2.5, None)
    found = places_here("auto", [cell()] * 9, {})
    assert [place.cores for place in found.all] == [None, None]
    machine["quota"] = (None, None)
    in_job = {"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "4"}
    assert [p.cores for p in places_here("auto", [cell()] * 9, in_job).all] == [None] * 4
    in_step = in_job | {"SLURM_STEP_ID": "0", "SLURM_CPUS_PER_TASK": "2"}
    assert len(places_here("auto", [cell()] * 9, in_step).all) == 2


def test_each_gpu_has_a_worker_and_cells_without_one_take_the_other_cores(machine):
    machine["gpus"] = ["3", "GPU-uuid"]
    alike = [cell(cpus_per_rank=2)] * 4
    found = places_here("auto", [*alike, *[cell("tree", cpus_per_rank=2, cpu_only=True)] * 3], {})
    assert [(place.gpus, len(place.cores)) for place in found.all] == [
        ("3", 3),
        ("GPU-uuid", 3),
        ("", 3),
        ("", 3),
        ("", 3),
    ]
    assert found.for_cell(cell(cpu_only=True)) == found.without_gpu
    assert found.for_cell(cell()) == found.of_cells
    assert len({core for place in found.all for core in place.cores}) == 15


@pytest.mark.parametrize(("gpus", "most"), [([], "16 cores"), (["0"], "1 GPUs")])
def test_more_workers_than_devices_are_refused(machine, gpus, most):
    machine["gpus"] = gpus
    with pytest.raises(UserError, match=most):
        places_here(17, [cell()], {})


def test_gpus_and_cores_are_read_as_their_owners_write_them():
    assert gpus_here({"CUDA_VISIBLE_DEVICES": "1, MIG-x"}) == ["1", "MIG-x"]
    assert (
        gpus_here({"CUDA_VISIBLE_DEVICES": ""}) == gpus_here({"CUDA_VISIBLE_DEVICES": "-1"}) == []
    )
    assert cores_in("0-2,8") == {0, 1, 2, 8}
    # Domains of three cores, shares of two: one share is of both.
    assert share_out(range(6), 3, [{0, 1, 2}, {3, 4, 5}]) == [(0, 1), (3, 4), (2, 5)]


def test_origins_come_first_then_the_longest_then_what_shares_the_pack():
    names = {"short": 1.0, "long": 50.0, "tuned": 70.0, "origin": 1.0, "alike": 49.0, "tree": None}
    cells = [cell(name, pack="q" if name == "alike" else "p") for name in names]
    cells[2].origin = "origin"
    agenda = Agenda([(one,) for one in cells], names)

    def order(*packs: str) -> list[str]:
        ready = agenda.ready(lambda bundle: bundle[0].name != "tuned", packs)
        return [bundle[0].name for bundle in ready]

    assert order("p") == ["origin", "long", "tree", "alike", "short"]
    assert order("q") == ["origin", "alike", "long", "tree", "short"]
    # What one tree took says what the next takes.
    agenda.note((cell("tree"),), 60 * 200.0)
    assert order("p")[:2] == ["origin", "tree"]
    agenda.remove(agenda.waiting[0])
    assert "short" not in agenda.names
    assert [
        b[0].name for b in Agenda([(one,) for one in cells], names, in_order=True).ready(bool, ())
    ] == list(names)
