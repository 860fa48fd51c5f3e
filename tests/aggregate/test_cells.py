"""Cells of the page's tables."""

import pytest

from irnet_hpc.aggregate.page.cells import formula, number_of


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.2661 (n=1)", 0.2661),
        ("1,234", 1234),
        ("-7.8 %", -7.8),
        ("p < 0.001", 0.001),
        ("random_forest 0.30 ± 0.01 (n=3)", 0.3),
        ("irnet-17", None),
        ("not run", None),
        ("0.1 to 0.2", 0.1),
        ("n < 3", None),
        ("1e-05 (n=1)", 1e-5),
    ],
)
def test_what_a_cell_sorts_by(text, number):
    assert number_of(text) == number


def test_formulas_have_subscripts():
    assert formula("Fe2(SO4)3") == "Fe<sub>2</sub>(SO<sub>4</sub>)<sub>3</sub>"
    assert formula("Ni0.5<b>") == "Ni<sub>0.5</sub>&lt;b&gt;"
