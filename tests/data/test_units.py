"""Units in headers, read and converted."""

import numpy as np
import pytest

from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.units import can_convert, convert, is_unit, split_header
from irnet_hpc.errors import UserError


@pytest.mark.parametrize(
    ("header", "name", "unit"),
    [
        ("Eg (eV)", "Eg", "eV"),
        ("Eg(eV)", "Eg", "eV"),
        ("K_VRH [GPa]", "K_VRH", "GPa"),
        ("Ef (meV/atom)", "Ef", "meV/atom"),
        ("V (Å³/atom)", "V", "Å³/atom"),
        ("kappa (W m-1 K-1)", "kappa", "W m-1 K-1"),
        ("Eg, eV", "Eg", "eV"),
        ("gap (HSE)", "gap (HSE)", ""),
        ("lattice (a)", "lattice (a)", ""),
        ("log10(GPa)", "log10(GPa)", ""),
        ("log10(K_VRH)", "log10(K_VRH)", ""),
        ("(eV)", "(eV)", ""),
        ("band_gap", "band_gap", ""),
    ],
)
def test_a_header_is_a_name_and_a_unit_or_a_name(header, name, unit):
    assert split_header(header) == (name, unit)


# By hand: 1 Ha = 27.211386 eV (CODATA), 1 kbar = 0.1 GPa, 1 nm³ = 1000 Å³, 1 kg/m³ = 0.001 g/cm³.
@pytest.mark.parametrize(
    ("source", "target", "factor"),
    [
        ("meV/atom", "eV/atom", 1e-3),
        ("Ha/atom", "eV/atom", 27.211386),
        ("eV/at", "eV/atom", 1),
        ("kbar", "GPa", 0.1),
        ("MPa", "GPa", 1e-3),
        ("nm^3/cell", "Å³/cell", 1000),
        ("A", "mA", 1000),
        ("kg/m3", "g/cm³", 1e-3),
        ("muB/cell", "µB/cell", 1),
    ],
)
def test_quantities_are_converted(source, target, factor):
    np.testing.assert_allclose(convert(np.array([1.0, 2.0]), source, target), [factor, 2 * factor])


def test_thousandths_are_divided_and_not_multiplied():
    assert convert(np.array([1400.0, 2100.0]), "meV", "eV").tolist() == [1.4, 2.1]


def test_one_unit_in_two_spellings_changes_no_digit():
    values = np.array([0.1, 1 / 3])
    for spelling in ("Å^3/atom", "Å**3/atom", "angstrom^3/atom", "\u212b³/atom"):
        assert convert(values, spelling, "Å³/atom") is values
    assert convert(np.array([25.0]), "°C", "K").tolist() == [298.15]


@pytest.mark.parametrize(
    ("source", "target"),
    [("GPa", "eV"), ("eV", "eV/atom"), ("kJ/mol", "eV/atom"), ("Å³", "Å³/cell"), ("HV", "GPa")],
)
def test_quantities_of_different_kinds_are_not_converted(source, target):
    assert not can_convert(source, target)
    with pytest.raises(UserError, match="cannot be converted to"):
        convert(np.ones(1), source, target)


def test_every_unit_of_a_known_property_is_one_that_can_be_read():
    for known in PROPERTIES.values():
        assert is_unit(known.unit) and can_convert(known.unit + " ", known.unit)
