"""Turn an entry of OPTIMADE into a row of a raw table.

A structure that cannot be used becomes a row with a reason, so that packing lists it, or packs its
formula where features need no structure.

The adapter of the consortium's own package, optimade 1.5.0, is not used here, for two reasons. It
makes of a CH3 group, a species of carbon with three attached hydrogen atoms, a site of carbon alone
and says nothing. And its models refuse an entry for flaws that do not matter here, such as elements
that are not in alphabetical order. Tests compare all other structures with those of the adapter.

Source: the specification, https://github.com/Materials-Consortia/OPTIMADE, optimade.rst 1.2,
section "Structures Entries".
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from irnet_hpc.data.crystals import Unsuitable
from irnet_hpc.data.download.optimade.answers import MAX_DEPTH
from irnet_hpc.data.download.records import Record, UnitCell, Unusable, number
from irnet_hpc.data.structures.entries import (
    NOT_READABLE,
    Site,
    entry_of,
    fractional,
    plain_symbol,
)

# Attributes that a structure is read from.
FIELDS = (
    "chemical_formula_reduced",
    "dimension_types",
    "nperiodic_dimensions",
    "lattice_vectors",
    "cartesian_site_positions",
    "nsites",
    "species",
    "species_at_sites",
    "structure_features",
)
NO_STRUCTURE = "no structure"
NO_POSITIONS = "atoms without positions"
# structure_features -> why such a structure cannot be used
FEATURES = {
    "assemblies": ("correlated disorder", "its sites are occupied in groups (assemblies)"),
    "implicit_atoms": (NO_POSITIONS, "a species is on no site (implicit_atoms)"),
    "site_attachments": (NO_POSITIONS, "atoms are attached to a site (site_attachments)"),
}
DISORDER = "disorder"  # which the species themselves tell
# Concentrations that are rounded, such as 0.33 and 0.66, add up to 1 with this tolerance.
MAX_ROUNDING = 0.02
FULL = 1e-6  # a concentration whose difference from 1 is less is 1
MAX_NUMBERS = 1000  # that an entry may report


def record_of(entry: Mapping[str, Any], properties: Sequence[str]) -> Record:
    """Convert an entry to a row.

    Args:
        entry: An entry of /structures.
        properties: The provider's own properties that are read.

    Raises:
        Unusable: If the entry has no id.
    """
    id_, attributes = entry.get("id"), entry.get("attributes")
    if isinstance(id_, int) and not isinstance(id_, bool):
        id_ = str(id_)  # of OQMD's service, which gives numbers where the standard wants texts
    if not isinstance(id_, str) or not id_:
        raise Unusable("no id")
    if not isinstance(attributes, Mapping):
        raise Unusable("no attributes")
    formula = attributes.get("chemical_formula_reduced")
    formula = formula if isinstance(formula, str) and formula else None
    targets = dict(_numbers(attributes, properties))
    try:
        cell = cell_of(attributes)
    except Unsuitable as error:
        reason, detail = error.args
        return Record(id_, formula, targets, None, (reason, detail))
    # The reduced formula of a disordered structure is rounded to whole numbers, so the sites say
    # more. That of any other structure must be the one of its sites, which is checked on reading.
    is_ordered = all(isinstance(site, str) for site in cell.species)
    return Record(id_, formula if is_ordered else None, targets, cell)


def _numbers(
    attributes: Mapping[str, Any], properties: Sequence[str]
) -> Iterator[tuple[str, float]]:
    """Yield the name and value of each number; those in a dictionary are called `_a.b.c`."""
    stack = [(name, attributes[name], 0) for name in reversed(properties) if name in attributes]
    n_numbers = 0
    while stack and n_numbers < MAX_NUMBERS:
        name, value, depth = stack.pop()
        if isinstance(value, Mapping) and depth < MAX_DEPTH:
            stack += [(f"{name}.{key}", value[key], depth + 1) for key in reversed(value)]
        elif not isinstance(value, str) and (found := number(value)) is not None:
            n_numbers += 1
            yield name, found


def cell_of(attributes: Mapping[str, Any]) -> UnitCell:
    """Convert the attributes of an entry to a crystal.

    Raises:
        Unsuitable: If they do not give the position of every atom in a crystal that is periodic in
            three directions.
    """
    try:
        return _cell_of(attributes)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        if isinstance(error, Unsuitable):
            raise
        text = f"{type(error).__name__}: {error}"
        raise Unsuitable(NOT_READABLE, f"not as OPTIMADE defines it ({text:.100})") from None


def _cell_of(attributes: Mapping[str, Any]) -> UnitCell:
    for name in ("lattice_vectors", "cartesian_site_positions", "species_at_sites"):
        # A service may leave out what is large, and null is its word for unknown.
        if attributes.get(name) is None:
            raise Unsuitable(NO_STRUCTURE, f"{name} is not given")
    _check_features(attributes.get("structure_features"))
    _check_periodic(attributes)
    labels = attributes["species_at_sites"]
    positions, n_sites = attributes["cartesian_site_positions"], attributes.get("nsites")
    if n_sites not in (None, len(labels)) or len(positions) != len(labels):
        raise Unsuitable(
            NOT_READABLE,
            f"{len(labels)} species and {len(positions)} positions, where nsites is {n_sites}",
        )
    site_by_label = _sites(labels, attributes.get("species"))
    species, kept = [], []
    for label, position in zip(labels, positions, strict=True):
        if site := site_by_label[label]:  # a site of nothing but a vacancy has no atom
            species.append(site)
            kept.append(position)
    if not species:
        raise Unsuitable("a structure without atoms", "")
    lattice = attributes["lattice_vectors"]
    return UnitCell(**entry_of(lattice, species, fractional(lattice, kept)))


def _check_features(stated: object) -> None:
    for feature in stated if isinstance(stated, list) else ():
        if feature in FEATURES:
            raise Unsuitable(*FEATURES[feature])
        if feature != DISORDER:
            # By the specification, whoever does not know a feature may misread the structure.
            raise Unsuitable(NOT_READABLE, f"structure_features has {feature!r:.50}")


def _check_periodic(attributes: Mapping[str, Any]) -> None:
    types, n_periodic = attributes.get("dimension_types"), attributes.get("nperiodic_dimensions")
    if types is None and n_periodic is None:
        raise Unsuitable("not periodic in three directions", "dimension_types are not given")
    if types not in (None, [1, 1, 1]) or n_periodic not in (None, 3):
        detail = f"dimension_types {types!r:.50}, nperiodic_dimensions {n_periodic!r:.20}"
        raise Unsuitable("not periodic in three directions", detail)


def _sites(labels: Sequence[str], species: object) -> dict[str, Site | None]:
    """Return label -> what is on its sites; None: nothing.

    Raises:
        Unsuitable: If a label has no species.
    """
    if species is None:
        # Then the labels are symbols, as the consortium's adapter takes them, too.
        return {label: plain_symbol(label) for label in set(labels)}
    if not isinstance(species, list):
        raise Unsuitable(NOT_READABLE, f"species must be a list, got {type(species).__name__}")
    named: dict[str, Mapping[str, Any]] = {}
    for one in species:
        if named.setdefault(one["name"], one) is not one:
            raise Unsuitable(NOT_READABLE, f"two species are called {one['name']!r:.50}")
    if missing := sorted(set(labels) - named.keys()):
        raise Unsuitable(NOT_READABLE, f"no species is called {missing[0]!r:.50}")
    return {label: _site(named[label]) for label in set(labels)}


def _site(species: Mapping[str, Any]) -> Site | None:
    """Return what is on the sites of a species; None if they are empty.

    Masses are not read: an isotope counts as its element, as everywhere in this package.
    """
    name, symbols, amounts = species["name"], species["chemical_symbols"], species["concentration"]
    if species.get("attached") or species.get("nattached"):
        detail = f"{species.get('attached')} attached to {name!r:.50}"
        raise Unsuitable(NO_POSITIONS, f"{detail:.100}")
    values = [number(amount) for amount in amounts]
    if len(values) != len(symbols) or any(value is None or value < 0 for value in values):
        raise Unsuitable(
            NOT_READABLE, f"species {name!r:.50} must have a concentration for each symbol"
        )
    total = sum(value for value in values if value is not None)
    if not abs(total - 1) <= MAX_ROUNDING:
        raise Unsuitable(
            NOT_READABLE, f"the concentrations of species {name!r:.50} add up to {total:.4g}"
        )
    site: dict[str, float] = {}
    for symbol, value in zip(symbols, values, strict=True):
        if value and symbol != "vacancy":
            element = plain_symbol(symbol)
            site[element] = site.get(element, 0.0) + value / total
    if not site:
        return None
    element, occupancy = next(iter(site.items()))
    return element if len(site) == 1 and abs(occupancy - 1) < FULL else site
