"""Read OQMD, the Open Quantum Materials Database, through its REST API.

    http://oqmd.org/oqmdapi/formationenergy?fields=name,entry_id,...&limit=1000&offset=0&format=json

    {"links": {"next": "http://...", "previous": null, "base_url": {...}}, "resource": {},
     "data": [{"name": "CsCl", "entry_id": 16974, "delta_e": -2.057, "stability": 0.0,
               "band_gap": 5.255, "natoms": 2, "volume": 73.2, "unit_cell": [[...], [...], [...]],
               "sites": ["Cs @ 0 0 0", "Cl @ 0.5 0.5 0.5"]}, ...],
     "meta": {"query": {...}, "api_version": "1.0", "time_stamp": "2019-10-08 15:13:12",
              "data_returned": 2, "data_available": 1078, "comments": "", "query_tree": "",
              "more_data_available": true},
     "response_message": "OK"}

Sources: the service's documentation, https://static.oqmd.org/static/docs/restful.html, and the code
that answers, in https://github.com/wolverton-research-group/qmpy:
qmpy/web/views/api/formationenergy_list_view.py (pages), qmpy/web/serializers/formationenergy.py
(fields), qmpy/materials/formation_energy.py (delta_e and stability in eV/atom),
qmpy/materials/atom.py (how a site is printed).

A row is one calculated formation energy, so an entry with several calculations has several rows.
The lowest energy is that of the entry, as in qmpy/materials/entry.py (Entry.energy). The service
promises no order of rows. `stability` is the distance in energy from the convex hull of the other
phases. It is negative if the entry is stable, that is, below the hull; some versions of the service
give zero instead. Coordinates of sites have three digits.
"""

import json
import re
from collections.abc import Iterable

from irnet_hpc.data.download.paged import Page, Service
from irnet_hpc.data.download.records import Record, UnitCell, Unusable, number, reported

URL = "http://oqmd.org/oqmdapi"
NUMBERS = ("delta_e", "stability", "band_gap", "natoms", "volume")
FIELDS = ("name", "entry_id", *NUMBERS)
STRUCTURE_FIELDS = ("unit_cell", "sites")
PROPERTIES = ("formation_energy", "energy_above_hull", "band_gap", "volume_per_atom")
SITE = re.compile(r"([A-Z][a-z]?) @ (\S+) (\S+) (\S+)")
NOTES = (
    "energy_above_hull is OQMD's stability, the distance from the hull of the other phases; "
    "negative values are kept",
    "an entry has a row for each of its calculations; "
    "only the row with the lowest formation energy is kept",
)


def query(fields: tuple[str, ...], base: str, page: int, n_rows: int) -> str:
    """Return the address of page `page` (counted from 0) with `n_rows` rows."""
    query = f"fields={','.join(fields)}&limit={n_rows}&offset={page * n_rows}&format=json"
    return f"{base.rstrip('/')}/formationenergy?{query}"


def read(body: bytes) -> Page:
    """Parse an answer. Raises ValueError if it does not have the documented form."""
    answer = json.loads(body)
    if not isinstance(answer, dict) or not isinstance(rows := answer.get("data"), list):
        raise ValueError("the answer must have a list named data")
    meta = answer.get("meta")
    total = meta.get("data_available") if isinstance(meta, dict) else None
    if type(total) is not int or total < 0:
        raise ValueError(f"meta.data_available must be a count, got {total!r}")
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("the data must be objects")
    return Page(rows, total)


def composition(row: dict) -> Record:
    """Convert a row to a material without its crystal. Raises Unusable if the row cannot be used.

    The service gives volumes in Å³ and energies in eV.
    """
    formula, entry, natoms = row["name"], row["entry_id"], number(row["natoms"])
    if not isinstance(formula, str) or not formula:
        raise Unusable("no formula")
    if not isinstance(entry, int | str):
        raise Unusable("no entry_id")
    volume = number(row["volume"]) or 0
    targets = reported(
        formation_energy=number(row["delta_e"]),
        energy_above_hull=number(row["stability"]),
        band_gap=number(row["band_gap"]),
        volume_per_atom=number(volume / natoms) if volume > 0 and natoms and natoms > 0 else None,
    )
    return Record(f"oqmd-{entry}", formula, targets)


def structure(row: dict) -> Record:
    """Convert a row to a material with its crystal. Raises Unusable if the row cannot be used."""
    record = composition(row)
    if not row["unit_cell"] or not row["sites"]:
        raise Unusable("no structure")
    try:
        lattice = [_vector(vector) for vector in row["unit_cell"]]
        sites = [SITE.fullmatch(site) for site in row["sites"]]
    except TypeError:
        raise Unusable("unit_cell and sites are not lists of vectors and of texts") from None
    if list(map(len, lattice)) != [3, 3, 3]:
        raise Unusable("unit_cell is not three vectors")
    # Other sites have several species, whose occupancies the service does not give, or a vacancy.
    if not all(sites):
        raise Unusable("a site is not of one element")
    position = [_vector(site.groups()[1:]) for site in sites if site]
    if any(len(coordinates) < 3 for coordinates in position):
        raise Unusable("a site's coordinates are not numbers")
    if number(row["natoms"]) != len(sites):
        raise Unusable("the number of sites differs from natoms")
    return record._replace(cell=UnitCell(lattice, [site[1] for site in sites if site], position))


def _vector(parts: Iterable[object]) -> list[float]:
    """Convert the parts of a vector to numbers; empty if one of them is not a number."""
    numbers = []
    for part in parts:
        if (value := number(part)) is None:
            return []
        numbers.append(value)
    return numbers


COMPOSITIONS = Service(
    lambda base, page, n_rows: query(FIELDS, base, page, n_rows),
    read,
    composition,
    PROPERTIES,
    structures=False,
    n_rows=2000,
    fields=FIELDS,
    numeric=NUMBERS,
    lowest="formation_energy",
    notes=NOTES,
)
STRUCTURES = Service(
    lambda base, page, n_rows: query(FIELDS + STRUCTURE_FIELDS, base, page, n_rows),
    read,
    structure,
    PROPERTIES,
    structures=True,
    n_rows=1000,
    fields=FIELDS + STRUCTURE_FIELDS,
    numeric=NUMBERS,
    lowest="formation_energy",
    notes=(*NOTES, "coordinates of sites have three digits, as the service gives them"),
)
