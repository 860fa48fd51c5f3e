"""Combine the packs of a matrix with the properties that it asks of them."""

from collections.abc import Sequence
from typing import NamedTuple

from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.errors import check_choice
from irnet_hpc.runs.spec import check_properties
from irnet_hpc.sweep.matrix.packs import MatrixPack


class Targets(NamedTuple):
    """The (pack, property) pairs of a matrix."""

    # The pairs to be trained.
    existing: list[tuple[str, str]]
    # (product, reason), for pairs that do not exist.
    absent: list[tuple[str, str]]
    # Notes on what is not known yet.
    notes: list[str]


def targets_of(packs: Sequence[MatrixPack]) -> Targets:
    """Combine packs with their properties. Raises UserError for an unknown property."""
    known = {"all", *PROPERTIES, *(name for pack in packs for name in pack.units)}
    existing, absent, notes = [], [], []
    for pack in packs:
        for name in pack.properties:
            parts = check_properties(name)
            for part in parts:
                check_choice("property", part, known if len(parts) == 1 else known - {"all"})
        if pack.impossible:
            absent += [(f"{pack.name} × {name}", pack.impossible) for name in pack.properties]
            continue
        if "all" in pack.properties and not pack.exists:
            notes.append(
                f"pack {pack.name} has no cells until it is built and all its properties are known"
            )
            continue
        joint = [name for name in pack.properties if "," in name]
        for name in (*pack.units, *joint) if "all" in pack.properties else pack.properties:
            if set(check_properties(name)) <= pack.units.keys():
                existing.append((pack.name, name))
            else:
                has = "the pack has" if pack.exists else "its source may have"
                absent.append((f"{pack.name} × {name}", f"{has} {', '.join(sorted(pack.units))}"))
    if not all(pack.exists or pack.impossible for pack in packs):
        notes.append(
            "some packs are not built yet, so it could not be checked whether they have their "
            "properties"
        )
    return Targets(existing, absent, notes)
