"""Compute how much room a crystal's atoms have, which none of Ward's 126 features says.

Those of `structure` do not change if the whole cell is scaled. These four do, so they tell a
crystal from a stretched one: the volume per atom, the density, the share of the volume that spheres
of the elements' covalent radii would fill, and the volume over that of the elements as pure solids.
Radii, masses and volumes of the elements are those of `magpie`; where its tables lack an element,
the mean over the elements stands.
"""

import numpy as np

from irnet_hpc.data.crystals import Crystal, reduced_cell
from irnet_hpc.features import magpie

LABELS = [
    "volume per atom",
    "density",
    "packing fraction of covalent spheres",
    "volume relative to that of the elements",
]
# Names in PROPERTIES of properties that these features state.
TELLS = ("volume_per_atom", "volume", "density")
# One atomic mass unit in one cubic ångström, in g/cm³ (CODATA 2018).
GRAMS_PER_CM3 = 1.66053906660


def vector(crystal: Crystal) -> np.ndarray:
    """Compute the features of a crystal.

    Returns:
        (4,) float64, in the order of LABELS: Å³, g/cm³, and two without a unit.

    Raises:
        Unsuitable: if the lattice has no volume or its numbers are not readable.
    """
    lattice, _ = reduced_cell(crystal)
    volume = abs(np.linalg.det(lattice))
    of_elements = magpie.tables().properties[crystal.number]  # (n_sites, n_properties)
    mass, radius, alone = (
        of_elements[:, magpie.PROPERTIES.index(name)]
        for name in ("AtomicWeight", "CovalentRadius", "GSvolume_pa")
    )
    spheres = 4 / 3 * np.pi * (radius / 100) ** 3  # the table's radii are in pm
    return np.array(
        [
            volume / len(crystal.number),
            mass.sum() * GRAMS_PER_CM3 / volume,
            spheres.sum() / volume,
            volume / alone.sum(),
        ]
    )
