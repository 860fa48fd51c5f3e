"""Hold estimates to weights that torch counts, seconds by hand, and done cells."""

import dataclasses
import json

import pytest
import torch

from irnet_hpc.models.architectures import MODELS, layer_string, parse_layers
from irnet_hpc.models.network import Network, n_parameters
from irnet_hpc.runs.recipes import RECIPES, resolve
from irnet_hpc.sweep import cli as sweep
from irnet_hpc.sweep import costs
from irnet_hpc.sweep.cell_states import read_ledger
from irnet_hpc.sweep.costs import (
    Allocation,
    Device,
    Link,
    Work,
    n_weights,
    proposed_ranks,
    training_s,
)
from irnet_hpc.sweep.estimates import estimates, fits_here
from irnet_hpc.sweep.matrix.matrix import read_matrix
from tests.builders import write_pack, write_result

LAYERS = [
    layer_string(architecture, depth) for architecture, depths in MODELS.items() for depth in depths
]
RECIPE = resolve({"name": "t", "base": "paper", "batch": 128, "norm_group": 32, "epochs": 10})


@pytest.mark.parametrize(
    ("architecture", "published"),
    [("irnet", 5_554_529), ("srnet", 5_554_529), ("plain", 4_705_665)],
)
def test_weights_are_those_that_the_papers_networks_have(architecture, published):
    assert n_weights(layer_string(architecture, 17), 145) == published


@pytest.mark.parametrize("layers", [*LAYERS, "48L0.3Rx2+1D0.2-32BAD0.1x2-1", "8BARx1-8BAx2R-1"])
def test_weights_are_those_that_torch_counts(layers):
    with torch.device("meta"):
        network = Network(8, parse_layers(layers)._replace(n_outputs=3))
    assert n_weights(layers, 8, 3) == n_parameters(network)


@pytest.fixture
def simple_device(monkeypatch):
    """1 GFLOP/s a core, 1 ns a weight, 1 ms a layer; between ranks 1 ms and 1 MB/s."""
    device = Device(
        {"fp32": 1e9, "bf16": 1e9},
        weight_s=1e-9,
        layer_s=1e-3,
        link=Link(1e-3, 1e6, ""),
        source="",
    )
    monkeypatch.setitem(costs.DEVICES, "core", device)
    return device


def test_seconds_are_steps_times_products_weights_layers_and_the_allreduce(simple_device):
    work = Work(
        n_weights=1_000, depth=5, n_rows=1_300, epochs=10, recipe=RECIPE
    )  # 10 steps an epoch, 20 rows dropped
    step = 6 * 1_000 * 128 / 1e9 + 1_000 * 1e-9 + 5e-3
    assert training_s(work, Allocation(1, 1, "core")) == pytest.approx(100 * step)
    two = 6 * 1_000 * 64 / 1e9 + 1_000 * 1e-9 + 5e-3 + 2 * (1e-3 + 2_000 / 1e6)  # halves of 4 kB
    assert training_s(work, Allocation(1, 2, "core")) == pytest.approx(100 * two)
    by_bf16 = dataclasses.replace(work, recipe=dataclasses.replace(RECIPE, allreduce="bf16"))
    assert training_s(by_bf16, Allocation(1, 2, "core")) == pytest.approx(
        100 * (two - 2 * 1_000 / 1e6)
    )
    cores = 6 * 1_000 * 128 / 4e9 + 1_000 * 1e-9 + 5e-3
    assert training_s(work, Allocation(1, 1, "core", cores=4)) == pytest.approx(100 * cores)


def test_the_fewest_ranks_that_meet_the_limit_are_proposed(simple_device, monkeypatch):
    """None are where they would mostly wait for each other, or where no link was measured."""
    work = Work(n_weights=1_000_000, depth=1, n_rows=1_280, epochs=10, recipe=RECIPE)
    alone = training_s(work, Allocation(1, 1, "core"))  # 77 s; an allreduce takes 4 s
    assert 76 < alone < 78
    ranks = Allocation(1, 1, "core")
    monkeypatch.setitem(
        costs.DEVICES, "core", dataclasses.replace(simple_device, link=Link(1e-3, 1e9, ""))
    )
    assert proposed_ranks(work, ranks, limit_s=alone) == 1
    assert proposed_ranks(work, ranks, limit_s=alone, speed=1.5) == 2
    assert proposed_ranks(work, ranks, limit_s=0.99 * alone) == 2
    assert proposed_ranks(work, ranks, limit_s=0.3 * alone) == 4
    assert (
        proposed_ranks(work, ranks, limit_s=0.1 * alone) is None
    )  # 8 ranks would have half a group of rows each
    monkeypatch.setitem(costs.DEVICES, "core", simple_device)
    assert proposed_ranks(work, ranks, limit_s=0.99 * alone) is None
    without_link = dataclasses.replace(simple_device, link=None)
    monkeypatch.setitem(costs.DEVICES, "core", without_link)
    assert proposed_ranks(work, ranks, limit_s=alone) == 1
    assert proposed_ranks(work, ranks, limit_s=0.99 * alone) is None


MATRIX = """
packs: [alloys-magpie, oqmd-magpie]
properties: [mixing_enthalpy]
models: [{architectures: [plain, irnet], depths: [17]}, linear]
resources: {minutes: 30}
"""


@pytest.fixture
def place(tmp_path):
    write_pack(tmp_path / "packs", "alloys-magpie", {"mixing_enthalpy": "eV/atom"}, rows=5124)
    (tmp_path / "mine.yaml").write_text(
        MATRIX.replace("oqmd-magpie", "{name: two, source: alloys}")
    )
    return tmp_path


def of_models(place, **options) -> dict:
    """(pack, model) -> estimate."""
    matrix = read_matrix(place / "mine.yaml", place / "packs")
    ledger = read_ledger(matrix, place / "results")
    found = zip(ledger.cells, estimates(matrix, ledger, **options), strict=True)
    return {(entry.cell.spec.pack, entry.cell.spec.model): estimate for entry, estimate in found}


def test_an_estimate_has_the_packs_rows_and_says_where_they_are_not_known(place):
    found = of_models(place)
    irnet = found["alloys-magpie", "irnet-17"]
    assert (irnet.n_rows, irnet.n_weights) == (5120, n_weights(layer_string("irnet", 17), 1))
    seconds = training_s(
        Work(irnet.n_weights, 17, 5120, 30, RECIPES["onecycle"]), Allocation(1, 1, "core")
    )
    assert irnet.device_hours == pytest.approx(seconds / 3600)
    assert (irnet.n_ranks, irnet.n_done) == (1, 0)
    assert (
        "not built" in found["two", "irnet-17"].unknown
        and found["two", "irnet-17"].device_hours is None
    )
    assert "classical" in found["alloys-magpie", "linear"].unknown
    assert (
        of_models(place, device="gpu")["alloys-magpie", "irnet-17"].device_hours
        != irnet.device_hours
    )
    text = (place / "mine.yaml").read_text()
    (place / "mine.yaml").write_text(text + "train_rows: [1000]\nprotocols: [paper]\n")
    assert of_models(place)["alloys-magpie", "irnet-17"].n_rows == 1000
    (place / "mine.yaml").write_text(text + "protocols: [paper]\n")
    assert of_models(place)["alloys-magpie", "irnet-17"].n_rows == 5122


def test_a_done_cell_says_how_fast_the_others_are_and_when_they_stop(place):
    before = of_models(place)
    matrix = read_matrix(place / "mine.yaml", place / "packs")
    (plain,) = (
        c for c in matrix.cells if (c.spec.pack, c.spec.model) == ("alloys-magpie", "plain-17")
    )
    expected = before["alloys-magpie", "plain-17"]
    # It took three times as long for a row as the model says, on two ranks, and stopped after 10 of
    # 30 epochs.
    two = training_s(Work(expected.n_weights, 17, 5120, 10, plain.recipe), Allocation(1, 2, "core"))
    facts = {
        "n_parameters": expected.n_weights,
        "n_train": 5120,
        "epochs": 10,
        "attempts": [{"size": 2}],
    }
    write_result(matrix, plain, place / "results", device_hours=3 * 2 * two / 3600, **facts)
    after = of_models(place)["alloys-magpie", "irnet-17"]
    assert after.n_done == 1
    assert after.device_hours == pytest.approx(
        before["alloys-magpie", "irnet-17"].device_hours * 3 * 10 / 30
    )


def test_a_done_cell_of_a_classical_model_says_what_the_other_seeds_cost(place):
    text = MATRIX.replace(", oqmd-magpie", "").replace("linear", "random_forest, bagging")
    (place / "mine.yaml").write_text(text + "seeds: [0, 1, 2]\n")
    matrix = read_matrix(place / "mine.yaml", place / "packs")
    forests = [cell for cell in matrix.cells if cell.spec.model == "random_forest"]
    for cell, hours in zip(forests[:2], (0.25, 0.75), strict=True):
        write_result(matrix, cell, place / "results", device_hours=hours)
    found = of_models(place)
    forest = found["alloys-magpie", "random_forest"]
    assert (forest.device_hours, forest.minutes, forest.n_done, forest.n_ranks) == (0.5, 30, 2, 1)
    assert found["alloys-magpie", "bagging"].device_hours is None


@pytest.mark.parametrize(
    ("resources", "fits"),
    [
        ("minutes: 30", True),
        ("minutes: 6000", False),  # of the cells without an estimate
        ("minutes: 30, gpus_per_rank: 1", False),
    ],
)
def test_few_hours_of_a_core_fit_here_where_slurm_is_too(place, resources, fits):
    (place / "mine.yaml").write_text(MATRIX.replace("minutes: 30", resources))
    matrix = read_matrix(place / "mine.yaml", place / "packs")
    ledger = read_ledger(matrix, place / "results")
    assert fits_here(ledger, estimates(matrix, ledger)) == fits


def test_the_plan_shows_estimates_beside_the_limits(place, capsys):
    command = [
        "plan",
        str(place / "mine.yaml"),
        "--results",
        str(place / "results"),
        "--pack-dir",
        str(place / "packs"),
    ]
    assert sweep.main(command) == 0
    shown = capsys.readouterr().out
    hours = of_models(place)["alloys-magpie", "irnet-17"].device_hours
    assert f"irnet-17/onecycle/honest/seed0  about {hours:.2g} of 0.5 device-hours\n" in shown
    assert "ranks: 1 is best for 2 of 2 cells" in shown
    assert (
        "no estimate of 2 cells: their packs are not built, so the number of rows is not known\n"
        in shown
    )
    (place / "mine.yaml").write_text(
        MATRIX.replace(", oqmd-magpie", "") + "recipes: [paper, grid]\n"
    )  # 3000 epochs
    assert sweep.main([*command, "--json"]) == 0
    told = [cell["estimate"] for cell in json.loads(capsys.readouterr().out)["cells"]]
    assert [of["n_rows"] for of in told] == [5120, 5120, None]
    assert sweep.main(command) == 0
    assert "of 0.5 device-hours: will not end in 30 minutes" in capsys.readouterr().out
