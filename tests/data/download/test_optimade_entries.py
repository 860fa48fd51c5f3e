"""Entries of OPTIMADE: which become crystals, and why others do not."""

import json

import pytest

from irnet_hpc.data.crystals import Unsuitable
from irnet_hpc.data.download.optimade import answers
from irnet_hpc.data.download.optimade.entries import cell_of, record_of
from irnet_hpc.data.download.records import Unusable
from tests.data.download.optimade_service import SITES, A, pure, rock_salt

SALT = rock_salt("t-1", "Na", "Cl")


def with_species(symbols: list[str], concentration: list[float], **other) -> dict:
    """Return sodium chloride whose sodium is a species of these symbols."""
    sodium = {"name": "Na", "chemical_symbols": symbols, "concentration": concentration, **other}
    return SALT | {"species": [sodium, pure("Cl")]}


def test_a_crystal_has_the_positions_of_its_entry():
    cell = cell_of(SALT)
    assert cell.lattice == [[A, 0, 0], [0, A, 0], [0, 0, A]]
    assert cell.species == ["Na"] * 4 + ["Cl"] * 4
    assert cell.frac_coords == [pytest.approx(site) for site in SITES]


@pytest.mark.parametrize(
    ("attributes", "site"),
    [
        (with_species(["Na", "vacancy"], [0.9, 0.1]), {"Na": 0.9}),
        (with_species(["Na", "K"], [0.25, 0.75]), {"Na": 0.25, "K": 0.75}),
        # Rounded, as the specification says: whoever reads them may make their sum 1.
        (with_species(["Na", "K"], [0.33, 0.66]), {"Na": 1 / 3, "K": 2 / 3}),
        (with_species(["Na", "Na"], [0.5, 0.5], mass=[22, 24]), "Na"),
        (with_species(["Na", "K"], [1.0, 0.0]), "Na"),
        (with_species(["Na"], [1], mass=[22.99], attached=None, nattached=None), "Na"),
        (SALT | {"species": None}, "Na"),
        (SALT | {"dimension_types": None}, "Na"),
        (SALT | {"nperiodic_dimensions": None, "nsites": None}, "Na"),
        (SALT | {"structure_features": None}, "Na"),
        (SALT | {"structure_features": ["disorder"]}, "Na"),
    ],
)
def test_the_first_site_is_what_its_species_says(attributes, site):
    found = cell_of(attributes).species[0]
    assert found == (pytest.approx(site) if isinstance(site, dict) else site)


def test_a_site_of_nothing_but_a_vacancy_is_left_out():
    cell = cell_of(with_species(["vacancy"], [1.0]))
    assert cell.species == ["Cl"] * 4
    assert cell.frac_coords == [pytest.approx(site) for site in SITES[4:]]


@pytest.mark.parametrize(
    ("attributes", "reason", "detail"),
    [
        ({}, "no structure", "lattice_vectors is not given"),
        (SALT | {"lattice_vectors": None}, "no structure", "lattice_vectors"),
        (SALT | {"species_at_sites": None}, "no structure", "species_at_sites"),
        (SALT | {"dimension_types": [1, 0, 1]}, "not periodic in three directions", "[1, 0, 1]"),
        (SALT | {"nperiodic_dimensions": 0}, "not periodic in three directions", "0"),
        (
            SALT | {"dimension_types": None, "nperiodic_dimensions": None},
            "not periodic in three directions",
            "not given",
        ),
        (
            SALT | {"lattice_vectors": [[A, 0, 0], [0, A, 0], [None] * 3]},
            "structure not readable",
            "3 × 3 finite numbers",
        ),
        (SALT | {"lattice_vectors": [[A, 0, 0]] * 3}, "a molecule without a cell", ""),
        (SALT | {"structure_features": ["assemblies"]}, "correlated disorder", "assemblies"),
        (SALT | {"structure_features": ["implicit_atoms"]}, "atoms without positions", "implicit"),
        (SALT | {"structure_features": ["new"]}, "structure not readable", "'new'"),
        (
            with_species(["Na"], [1.0], attached=["H"], nattached=[3]),
            "atoms without positions",
            "['H'] attached to 'Na'",
        ),
        (with_species(["X"], [1.0]), "a site on no element", "'X'"),
        (with_species(["Na"], [0.5]), "structure not readable", "add up to 0.5"),
        (with_species(["Na", "K"], [1.0]), "structure not readable", "for each symbol"),
        (with_species(["Na", "K"], [1.5, -0.5]), "structure not readable", "for each symbol"),
        (with_species(["Na"], ["NaN"]), "structure not readable", "for each symbol"),
        (SALT | {"species": [pure("Na")]}, "structure not readable", "no species is called 'Cl'"),
        (SALT | {"species": [pure("Na"), pure("Na"), pure("Cl")]}, "structure not readable", "two"),
        (SALT | {"species": "Na"}, "structure not readable", "must be a list"),
        (SALT | {"species": [7]}, "structure not readable", "not as OPTIMADE defines it"),
        (SALT | {"nsites": 9}, "structure not readable", "nsites is 9"),
        (SALT | {"cartesian_site_positions": [[0, 0]] * 8}, "structure not readable", ""),
        (SALT | {"cartesian_site_positions": [["a", 0, 0]] * 8}, "structure not readable", ""),
        (SALT | {"cartesian_site_positions": 7}, "structure not readable", "not as OPTIMADE"),
        (
            SALT | {"species_at_sites": [], "cartesian_site_positions": [], "nsites": 0},
            "a structure without atoms",
            "",
        ),
    ],
)
def test_an_entry_without_every_atom_of_a_crystal_has_a_reason(attributes, reason, detail):
    with pytest.raises(Unsuitable) as raised:
        cell_of(attributes)
    assert raised.value.args[0] == reason
    assert detail in raised.value.args[1]
    record = record_of({"id": "t-1", "attributes": attributes}, [])
    assert record.fault == raised.value.args
    assert record.formula == attributes.get("chemical_formula_reduced")


def test_a_disordered_entry_leaves_its_rounded_formula_out():
    entry = {"id": "t-1", "attributes": with_species(["Na", "vacancy"], [0.9, 0.1])}
    assert record_of(entry, []).formula is None
    assert record_of({"id": "t-1", "attributes": SALT}, []).formula == "ClNa"
    assert record_of({"id": 16974, "attributes": SALT}, []).material_id == "16974"


@pytest.mark.parametrize(
    "entry", [{}, {"id": None, "attributes": {}}, {"id": True, "attributes": {}}, {"id": "a"}]
)
def test_an_entry_without_id_or_attributes_is_left_out(entry):
    with pytest.raises(Unusable):
        record_of(entry, [])


def test_only_finite_numbers_of_the_properties_asked_for_are_read():
    values = {
        "_x_gap": 1,
        "_x_text": "2.5",
        "_x_flag": True,
        "_x_null": None,
        "_x_list": [1.0],
        "_x_large": 10**400,
        "_x_more": {"a": {"b": 2.0, "c": None}, "d": -1},
        "_x_other": 5.0,
    }
    deep = {"_x_deep": {"1": {"2": {"3": {"4": {"5": 1.0}}}}}}
    asked = [name for name in (values | deep) if name != "_x_other"]
    record = record_of({"id": "t", "attributes": SALT | values | deep}, asked)
    assert record.targets == {"_x_gap": 1.0, "_x_more.a.b": 2.0, "_x_more.d": -1.0}


def test_units_come_from_plain_descriptions_and_from_property_definitions():
    described = {
        "nsites": {"type": "integer"},
        "_x_gap": {"type": "float", "unit": "eV", "description": "the\n gap"},
        "_x_energy": {"type": ["number", "null"], "x-optimade-unit": "meV"},
        "_x_text": {"type": "string", "unit": "inapplicable"},
        "_x_unknown": {},
        "_x_parts": {
            "type": ["object", "null"],
            "x-optimade-unit": "inapplicable",
            "properties": {"a": {"properties": {"b": {"x-optimade-unit": "GPa"}}}},
        },
        "_x_bad": 7,
    }
    found = {one.name: one for one in answers.own_properties({"properties": described})}
    assert list(found) == ["_x_gap", "_x_energy", "_x_unknown", "_x_parts"]
    assert {name: one.unit for name, one in found.items()} == {
        "_x_gap": "eV",
        "_x_energy": "meV",
        "_x_unknown": "",
        "_x_parts": "",
    }
    assert found["_x_gap"].description == "the gap"
    assert found["_x_parts"].part_units == {"_x_parts.a.b": "GPa"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"errors": [{"title": "Bad Request", "detail": "no\nsuch"}]}, "Bad Request: no such"),
        ({"errors": [{"detail": "a"}, {"title": "b"}, 7]}, "a; b"),
        ({"errors": {}}, ""),
        ([], ""),
    ],
)
def test_the_reason_of_a_refusal_is_one_line(body, reason):
    assert answers.reason_of(json.dumps(body).encode()) == reason
    assert answers.reason_of(b"<html>") == ""
