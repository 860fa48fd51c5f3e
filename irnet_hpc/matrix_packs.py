"""The packs of a matrix: how each is built, what it holds, and with which of its properties the matrix has cells."""

import dataclasses
from pathlib import Path

from irnet_hpc import features
from irnet_hpc.errors import UserError, choose
from irnet_hpc.files import NAME
from irnet_hpc.loading import name_of
from irnet_hpc.properties import PROPERTIES
from irnet_hpc.sources import SOURCES
from irnet_hpc.store import open_pack, pack_path
from irnet_hpc.yaml_table import entries_of, mapping

# key of a pack that is given as a mapping -> its type and the option of `python -m irnet_hpc.pack` that it becomes
PACK_OPTIONS = {
    "source": (str, "--source"),
    "features": (str, "--features"),
    "rows": (int, "--rows"),
    "split_seed": (int, "--split-seed"),
}


@dataclasses.dataclass(frozen=True)
class MatrixPack:
    """A pack of the matrix: how it is built, and what it holds where it exists."""

    name: str
    options: tuple[str, ...] | None  # of `python -m irnet_hpc.pack`; None: it exists
    path: Path
    properties: tuple[str, ...]  # those the matrix wants of this pack, as written: perhaps `all`
    units: dict  # property -> unit: what it has; where it does not exist, what it may have
    identity: dict | None  # None: it does not exist yet

    @property
    def exists(self) -> bool:
        return self.identity is not None


def read_pack(entry: str | dict, asked: list[str], pack_dir: Path | str | None) -> MatrixPack:
    """A pack by its name, or a mapping that says how to build it.

    A name alone is enough where the pack exists, or where it is `<source>-<features>`. `asked` are the properties of the
    matrix, for packs that have no list of their own.
    """
    named, entry = isinstance(entry, str), spelled_out(entry)
    name = _check(entry)
    properties = entries_of(entry, "properties", (str,)) if "properties" in entry else asked
    path = pack_path(name, pack_dir)
    if path.exists():
        with open_pack(path) as pack:
            identity, units = dict(pack.identity), dict(pack.units)
        if not named:
            _refuse_another(path, entry, identity)
        return MatrixPack(name, None, path, tuple(properties), units, identity)
    if "source" not in entry:
        raise UserError(
            f"pack {name} is not in {path.parent} and nothing says how to build it; "
            "its name must be SOURCE-FEATURES, or it must be a mapping with name, source and features"
        )
    stated = mapping(entry.get("units", {}), f"units of pack {name}")
    name_of(entry["source"])  # refuses what is neither a source nor a path; a path is the user's own, whatever its name
    source = SOURCES.get(entry["source"])
    may_have = source.properties if source else PROPERTIES  # a table of the user's is not read just to plan
    units = {one: PROPERTIES[one].unit for one in may_have} | stated
    return MatrixPack(name, _options(entry, stated), path, tuple(properties), units, None)


def spelled_out(entry: str | dict) -> dict:
    """A pack as a mapping; where it is named `<source>-<features>`, that says how it is built."""
    if isinstance(entry, dict):
        return entry
    source, _, sets = entry.rpartition("-")
    return {"name": entry} | ({"source": source, "features": sets} if source and sets else {})


def _check(entry: dict) -> str:
    """The name of a pack, if its other keys are of the right type, too."""
    for key in entry:
        choose("key of a pack", key, {"name", "properties", "units", "filters", *PACK_OPTIONS})
    name = entry.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.endswith(".h5"):
        raise UserError(f"the name of a pack must be letters, digits and _.+=- and no ending, however: {name!r}")
    kinds = {key: kind for key, (kind, _) in PACK_OPTIONS.items()} | {"filters": bool}
    for key in kinds.keys() & entry.keys():
        if not isinstance(entry[key], kinds[key]) or (isinstance(entry[key], bool) and key != "filters"):
            raise UserError(f"{key} of pack {name} must be of type {kinds[key].__name__}, however: {entry[key]!r}")
    return name


def _options(entry: dict, units: dict) -> tuple[str, ...]:
    """The options of `python -m irnet_hpc.pack`; names that it would not know are refused now."""
    sets = features.parse(entry.get("features", "magpie"))
    source = SOURCES.get(entry["source"])
    if features.need_structures(sets) and source and not source.structures:
        known = ", ".join(name for name, source in SOURCES.items() if source.structures)
        raise UserError(
            f"pack {entry['name']} needs structures, but {entry['source']} has formulas only; those that have them: {known}"
        )
    options = [text for key, (_, option) in PACK_OPTIONS.items() if key in entry for text in (option, str(entry[key]))]
    options += [] if entry.get("filters", True) else ["--no-filters"]
    return (*options, *(text for name, unit in units.items() for text in ("--unit", f"{name}={unit}")))


def _refuse_another(path: Path, entry: dict, identity: dict) -> None:
    """A pack of the right name that was built in another way would give the table other numbers."""
    built = {
        "features": set(identity["features"].split("+")),
        "split_seed": identity["split"].get("seed"),  # None: the table's own split
        "filters": bool(identity["filters"]),
    }
    stated = {key: entry[key] for key in built if key in entry and built[key] is not None}
    if "features" in stated:
        stated["features"] = set(stated["features"].split("+"))
    if stated.get("filters"):
        del stated["filters"]  # a source may have none
    n_rows = identity["n_source_rows"]
    if n_rows > entry.get("rows", n_rows):  # fewer than asked for may be all there are
        stated["rows"], built["rows"] = entry["rows"], n_rows
    for key, value in stated.items():
        if value != built[key]:
            raise UserError(
                f"{key} of pack {entry['name']} must be what {path} was built with, however: {entry[key]}; "
                "remove the file, or give the pack another name"
            )


def targets_of(packs: list[MatrixPack]) -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[str]]:
    """The (pack, property) to train, those that do not exist with the reason, and notes on what cannot be known yet."""
    known = {"all", *PROPERTIES, *(name for pack in packs for name in pack.units)}
    targets, absent, notes = [], [], []
    for pack in packs:
        for name in pack.properties:
            choose("property", name, known)
        if "all" in pack.properties and not pack.exists:
            notes.append(f"pack {pack.name} has no cells until it is built and all its properties are known")
            continue
        for name in pack.units if "all" in pack.properties else pack.properties:
            if name in pack.units:
                targets.append((pack.name, name))
            else:
                has = "the pack has" if pack.exists else "its source may have"
                absent.append((f"{pack.name} × {name}", f"{has} {', '.join(sorted(pack.units))}"))
    if not all(pack.exists for pack in packs):
        notes.append("whether packs that are not built yet have their properties could not be checked")
    return targets, absent, notes
