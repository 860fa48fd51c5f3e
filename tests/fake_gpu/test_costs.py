"""What a step costs by the model of benchmarks/launches.py: every launch has a price."""

from pathlib import Path

import pytest

from benchmarks import launches

# case -> milliseconds at most, by the model of an H200
MOST_MS = {"IRNet-17-256": 0.58, "16 cells-256": 1.5}


@pytest.fixture(scope="module")
def priced(stand_in) -> dict:
    """Return the counts and prices of some cases."""
    script = Path(launches.__file__).resolve()
    return stand_in.json(script, "--on-the-stand-in", *MOST_MS)


@pytest.mark.parametrize(("case", "most"), MOST_MS.items())
def test_a_step_costs_no_more_than_it_did(priced, case, most):
    found = priced[case]
    total = sum(found[f"{kind}_us"] for kind in launches.FLOOR_US)
    floors = found["nodes"] * min(launches.FLOOR_US.values())
    assert floors < total <= 1e3 * most


@pytest.mark.parametrize("case", MOST_MS)
def test_what_is_priced_is_what_the_graphs_hold(priced, case):
    assert priced[case]["priced"] == priced[case]["nodes"]


def test_a_kernel_whose_bytes_nobody_declared_is_an_error():
    class Kernel:
        __name__ = "another_kernel"

    with pytest.raises(launches.Undeclared, match="another_kernel"):
        launches.Priced().triton(Kernel(), (1,))


def test_a_large_kernel_is_priced_by_its_bytes_and_a_product_by_its_flops():
    priced = launches.Priced()
    priced.add("other", 1, 4e9)
    assert priced.us["other"] == pytest.approx(1000)
    priced.add("product", 1, 100, 0.002)
    priced.add("product", 3, 100)
    assert priced.us["product"] == pytest.approx(2000 + 3 * 5)
    assert priced.n_launches == 5
