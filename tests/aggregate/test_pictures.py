"""The periodic table of the page."""

from pymatgen.core import Element

from irnet_hpc.aggregate.page.periodic_table import place
from irnet_hpc.data.elements import SYMBOLS


def test_elements_stand_where_pymatgen_has_them():
    for symbol in SYMBOLS:
        row, column = place(symbol)
        if row < 8:
            known = Element(symbol)
            assert (row, column) == (known.row, known.group), symbol
    assert [place(symbol) for symbol in ("La", "Lu", "Ac", "Lr", "Hf")] == [
        (8, 4),
        (8, 18),
        (9, 4),
        (9, 18),
        (6, 4),
    ]
    assert len({place(symbol) for symbol in SYMBOLS}) == len(SYMBOLS)
