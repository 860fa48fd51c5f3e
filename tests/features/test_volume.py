"""The set `volume` knows the size of the cell, which `structure` does not."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from irnet_hpc import featurize_structures, pack_table
from irnet_hpc.data.crystals import Crystal, Unsuitable
from irnet_hpc.features import volume

ROCK_SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3]
)


def crystal_of(structure: Structure) -> Crystal:
    numbers = np.array([site.specie.Z for site in structure], np.int16)
    return Crystal(structure.lattice.matrix, numbers, structure.frac_coords)


def test_the_features_of_rock_salt_are_those_worked_out_by_hand():
    per_atom, density, packing, relative = volume.vector(crystal_of(ROCK_SALT))
    assert per_atom == pytest.approx(5.64**3 / 8)
    # pymatgen has its own masses.
    assert density == pytest.approx(ROCK_SALT.density, rel=1e-4)
    # covalent radii of 1.66 and 1.02 Å
    assert packing == pytest.approx(4 * 4 / 3 * np.pi * (1.66**3 + 1.02**3) / 5.64**3)
    # 29.243 and 24.498 Å³ an atom in the solids of sodium and chlorine, by magpie's table
    assert relative == pytest.approx(5.64**3 / 4 / (29.2433333 + 24.4975), rel=1e-2)


def test_another_cell_changes_nothing_and_another_size_only_these_features():
    stretched = ROCK_SALT.copy()
    stretched.scale_lattice(ROCK_SALT.volume * 1.4**3)
    given = [ROCK_SALT, ROCK_SALT.get_primitive_structure(), stretched]
    one, primitive, larger = featurize_structures(given, "volume").to_numpy()
    np.testing.assert_allclose(primitive, one, rtol=1e-5)
    np.testing.assert_allclose(larger / one, [1.4**3, 1.4**-3, 1.4**-3, 1.4**3], rtol=1e-5)
    shape = featurize_structures([ROCK_SALT, stretched], "magpie+structure").to_numpy()
    np.testing.assert_allclose(shape[1], shape[0], rtol=1e-4, atol=1e-5)


def test_a_lattice_of_no_volume_has_no_features():
    flat = Crystal(np.diag([3.0, 3.0, 1e-9]), np.array([11], np.int16), np.zeros((1, 3)))
    with pytest.raises(Unsuitable):
        volume.vector(flat)


def test_packing_warns_if_the_set_states_a_property(tmp_path, caplog):
    import pandas as pd

    crystals = [
        Structure(Lattice.cubic(3 + n / 10), ["Al", "Ni"], [[0] * 3, [0.5] * 3]) for n in range(12)
    ]
    frame = pd.DataFrame(
        {"structure": crystals, "density": np.arange(12) + 1.0, "other": range(12)}
    )
    options = {"features": "volume", "units": {"other": "1"}, "pack_dir": tmp_path, "workers": 1}
    with caplog.at_level("WARNING"):
        pack_table(frame, name="p", **options).close()
    told = [
        record.getMessage() for record in caplog.records if "volume states" in record.getMessage()
    ]
    assert len(told) == 1 and "density" in told[0]
