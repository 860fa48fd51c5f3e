"""Spaces of candidates: counts by hand, and each composition once as pymatgen sees it."""

from math import comb

import pytest
from pymatgen.core import Composition

from irnet_hpc.errors import UserError
from irnet_hpc.predict.compositions import count, enumerate_formulas, parse_space

SEEN = ("Li", "O", "Fe", "B")


@pytest.mark.parametrize(
    ("text", "endpoints", "expected"),
    [
        # 5 elements alone; 8 pairs of 9 points; 4 triples of C(9, 2) = 36
        ("Li|Na-Fe|Co-O, step 0.1", True, 5 + 8 * 9 + 4 * 36),
        ("Li|Na-Fe|Co-O, step 0.1", False, 4 * 36),
        ("alkali-O, step 0.5", False, 6),
        # Fe-Co and Co-Fe are one; with O three sets of two and one of three
        ("A-B-O, step 0.25, A=Fe|Co, B=Co|Fe", True, 3 + 3 * 3 + comb(3, 2)),
        ("A-B-O, step 0.25, A=Fe|Co, B=Co|Fe", False, comb(3, 2)),
        # Undefined, A and B are any of the 4 elements of the model, O apart: 3 sets of two.
        ("A-B-O, step 0.5", True, 4 + comb(4, 2)),
        ("A-B-O, step 0.25", False, comb(3, 2) * 3),
        ("B-O, step 0.25", False, 3),  # without an A it is boron
        ("Fe, step 1", True, 1),
    ],
)
def test_every_composition_comes_once_and_the_count_is_known_before(text, endpoints, expected):
    space = parse_space(text, SEEN, endpoints)
    found = list(enumerate_formulas(space))
    assert count(space) == len(found) == expected
    assert len({Composition(formula).fractional_composition for formula in found}) == expected


def test_fractions_are_multiples_of_the_step():
    for formula in enumerate_formulas(parse_space("Li-Fe-O, step 0.05", SEEN)):
        fractions = Composition(formula).fractional_composition.values()
        assert all(abs(20 * fraction - round(20 * fraction)) < 1e-6 for fraction in fractions)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Li-Q-O, step 0.1", "'Q'"),
        ("Li-O, step 0.3", "0.3"),
        ("Li-O, step 0", "'0'"),
        ("Li-O, step 1e-9", "at least 1e-06, got '1e-9'"),  # whose steps no memory holds
        ("Li-O", "the step is missing"),
        ("Li-O, step 0.1, step 0.5", "once, got 'step 0.5'"),
        ("A-O, step 0.1, A=Fe, A=Co", "once, got 'A=Co'"),
        ("Li-O, by 0.1", "'by 0.1'"),
        ("Li-O, step 0.1, Z=Fe", "Z"),
        ("Li-O, step 0.1, Xy=Fe", "'Xy'"),
        ("Li-Na-K-Rb-Cs-O-S, step 0.1", "at most 6"),
    ],
)
def test_text_that_is_no_space_is_a_user_error_that_names_it(text, named):
    with pytest.raises(UserError, match=named.replace(".", r"\.")):
        parse_space(text, SEEN)


def test_a_space_without_endpoints_has_a_step_for_every_place():
    with pytest.raises(UserError, match="2 steps for 3 places"):
        parse_space("Li-Fe-O, step 0.5", SEEN, endpoints=False)
