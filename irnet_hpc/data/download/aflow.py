"""Read AFLOW through AFLUX, its search API.

    https://aflow.org/API/aflux/?auid,compound,Egap,...,paging(1,2000),$format(json)

    {"1 of 912": {"compound": "Be1O1", "auid": "aflow:db1f17a6f945c29b", "Egap": "6.8531", ...},
     "2 of 912": {...}, ...}
    [{"compound": "Be1O1", "auid": "aflow:db1f17a6f945c29b", "Egap": 6.8531, ...}, {...}, ...]

A query consists of keywords, which become columns, and of directives. The directive `paging(n,k)`
asks for page n (counted from 1) of k entries, and `format(json)` for JSON. `$` mutes the word after
it. Users of `paging`, such as https://github.com/rosenbrockc/aflow, report the first of the two
answers above, whose keys state the total. Users of `$paging` report the second, without a total.
This module asks for the first, because a download can be checked against the total, but it can read
both. Without a total, an empty page marks the end. A keyword alone adds a column; `keyword(*)`
would also leave out all entries that lack the keyword, and most entries lack moduli. Entries are
sorted by the first keyword, in ascending order. This is auid, the name of an entry, so the pages
stay the same.

Sources: the service's help, https://aflow.org/API/aflux/?help; F. Rose et al., Comput. Mater. Sci.
137, 362 (2017); the lessons in https://github.com/aflow-org/aflow_school;
https://aflow.org/API/aflux/?schema for keywords and units (enthalpy_formation_atom and energy_atom
eV/atom, volume_cell Å³, density g/cm³, Egap eV, moduli GPa).
"""

import json
import re

from irnet_hpc.data.download.paged import Page, Service
from irnet_hpc.data.download.records import Record, Unusable, number, reported

URL = "https://aflow.org/API/aflux/"
KEYWORDS = {  # keyword -> property
    "enthalpy_formation_atom": "formation_energy",
    "energy_atom": "energy_per_atom",
    "Egap": "band_gap",
    "volume_cell": "volume",
    "density": "density",
    "ael_bulk_modulus_vrh": "bulk_modulus",
    "ael_shear_modulus_vrh": "shear_modulus",
}
PLACE = re.compile(r"(\d+) of (\d+)")


def query(base: str, page: int, n_rows: int) -> str:
    """Return the address of page `page` (counted from 0) with `n_rows` rows."""
    columns = f"auid,compound,{','.join(KEYWORDS)}"
    return f"{base.rstrip('?')}?{columns},paging({page + 1},{n_rows}),$format(json)"


def read(body: bytes) -> Page:
    """Parse an answer. Raises ValueError if it does not have a known form."""
    answer = json.loads(body)
    total = None
    if isinstance(answer, dict):
        places = {key: place for key in answer if (place := PLACE.fullmatch(key))}
        totals = {int(place[2]) for place in places.values()}
        if len(places) < len(answer) or len(totals) > 1:
            raise ValueError(f"keys must be '1 of 912', '2 of 912', ..., got {list(answer)[:3]}")
        total = totals.pop() if totals else None
        answer = [answer[key] for key in sorted(answer, key=lambda key: int(places[key][1]))]
    if not isinstance(answer, list) or not all(isinstance(row, dict) for row in answer):
        raise ValueError("the answer must be a list of entries")
    return Page(answer, total)


def entry(row: dict) -> Record:
    """Convert an entry of the answer to a material.

    Raises Unusable if the entry has no auid or no compound.
    """
    if (
        not isinstance(row["auid"], str)
        or not isinstance(row["compound"], str)
        or not row["compound"]
    ):
        raise Unusable("no auid or no compound")
    values = {name: number(row.get(keyword)) for keyword, name in KEYWORDS.items()}
    return Record(row["auid"], row["compound"], reported(**values))


ENTRIES = Service(
    query,
    read,
    entry,
    tuple(KEYWORDS.values()),
    structures=False,
    n_rows=2000,
    fields=("auid", "compound"),
    numeric=tuple(KEYWORDS),
    others=(*KEYWORDS, "aurl"),
    notes=("volume is that of the cell that AFLOW relaxed, for most entries the primitive cell",),
)
