"""Names and units of the columns of matminer's datasets."""

import pytest

from irnet_hpc.data.download import matminer_columns
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.files import NAME


def test_every_column_of_every_dataset_gets_a_name_and_no_property_a_wrong_one():
    for name, known in matminer_columns.metadata().items():
        names = matminer_columns.table_names(name, list(known["columns"]))
        assert len(set(names.values())) == len(names)
        assert [given for given in names.values() if not NAME.fullmatch(given)] == []
        canonical = matminer_columns.CANONICAL.get(name, {})
        assert {column for column, given in names.items() if given in PROPERTIES} == set(canonical)
        for column, given in canonical.items():
            stated = matminer_columns.unit_in(column, known["columns"][column])
            # What the metadata state, where they state anything, is the property's unit; "in eV"
            # may be meant per atom.
            unit = PROPERTIES[given].unit
            assert stated in (None, unit, unit.removesuffix("/cell")) or (stated, unit) == (
                "eV",
                "eV/atom",
            )


@pytest.mark.parametrize(
    ("name", "column", "given", "unit"),
    [
        ("matbench_log_kvrh", "log10(K_VRH)", "log10_K_VRH", "log10(GPa)"),
        ("castelli_perovskites", "e_form", "e_form", "eV"),  # of a cell, so no formation_energy
        ("heusler_magnetic", "mu_b", "mu_b", None),  # of a formula unit
        ("flla", "formation_energy", "formation_energy_of_flla", None),
        ("jarvis_dft_2d", "exfoliation_en", "exfoliation_en", "meV/atom"),
        (
            "jarvis_ml_dft_training",
            "e_exfol",
            "e_exfol",
            None,
        ),  # stated as eV/atom, which is doubtful
        (
            "boltztrap_mp",
            "pf_n",
            "pf_n",
            None,
        ),  # stated as uW/cm2.K, which is no unit of a power factor
        ("wolverton_oxides", "e_form", "formation_energy", "eV"),  # its authors say eV/atom
        ("superconductivity2018", "Tc", "Tc", "K"),
        ("ucsb_thermoelectrics", "rho (ohm.cm)", "rho", "Ω·cm"),
        ("ricci_boltztrap_mp_tabular", "σᵉ.p.T [K]", "sigmae.p.T", "K"),
        ("matbench_phonons", "last phdos peak", "last_phdos_peak", "1/cm"),
        ("wolverton_oxides", "alpha", "alpha", "degree"),
        ("glass_binary", "gfa", "gfa", None),
        ("dielectric_constant", "n", "n", None),
    ],
)
def test_names_and_units_are_what_a_reader_of_the_metadata_would_say(name, column, given, unit):
    known = matminer_columns.dataset(name)
    assert matminer_columns.table_names(name, list(known["columns"]))[column] == given
    assert matminer_columns.unit_in(column, known["columns"][column]) == unit
