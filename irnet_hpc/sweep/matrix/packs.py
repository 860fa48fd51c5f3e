"""The packs of a matrix: how each is built, what it holds, and with which of its properties the matrix has cells."""

import dataclasses
import itertools
from pathlib import Path

from irnet_hpc.data.elements import FAMILIES
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.resolve import ResolvedSource, resolve_source
from irnet_hpc.data.sources import SOURCES
from irnet_hpc.data.splits import (
    RANDOM,
    SplitRule,
    join_with_or,
    parse_split_rule,
    rule_of_identity,
    split_suffix,
)
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.features import sets as features
from irnet_hpc.files import NAME
from irnet_hpc.pack.store import open_pack, pack_path
from irnet_hpc.runs.spec import checked_properties
from irnet_hpc.sweep.matrix.yaml_file import entries_of, mapping

# key of a pack that is given as a mapping -> its type and the option of `python -m irnet_hpc.pack` that it becomes
PACK_OPTIONS = {
    "source": (str, "--source"),
    "features": (str, "--features"),
    "rows": (int, "--rows"),
    "split": (str, "--split"),
    "split_seed": (int, "--split-seed"),
}
# key of a matrix or of a pack that is an axis of splits -> the key of a pack that each of its values is given to
AXES = {"splits": "split", "split_seeds": "split_seed"}
EVERY_FAMILY = ("families", "family:*")  # an entry of `splits` that stands for the whole series


@dataclasses.dataclass(frozen=True)
class MatrixPack:
    """A pack of the matrix: how it is built, and what it holds where it exists."""

    name: str
    base: str  # its name in the matrix: without what an axis of splits has added to it
    split: SplitRule | None  # None: the column of a table, known where the pack exists
    options: tuple[str, ...] | None  # of `python -m irnet_hpc.pack`; None: it exists
    path: Path
    properties: tuple[str, ...]  # those the matrix wants of this pack, as written: perhaps `all`
    units: dict  # property -> unit: what it has; where it does not exist, what it may have
    identity: dict | None  # None: it does not exist yet
    impossible: str = ""  # why it can never be built
    # Where it exists:
    n_features: int = 0
    n_rows: dict = dataclasses.field(default_factory=dict)  # split -> rows
    reported: dict = dataclasses.field(
        default_factory=dict
    )  # property -> split -> rows that report it

    @property
    def exists(self) -> bool:
        return self.identity is not None


def read_packs(
    entry: str | dict, asked: list[str], pack_dir: Path | str | None, axes: dict
) -> list[MatrixPack]:
    """A pack by its name, or a mapping that says how to build it, in each of the splits that it is asked for.

    A name alone is enough where the pack exists, or where it is `<source>-<features>`. `asked` are the properties of the
    matrix, `axes` its axes of splits, for packs that say nothing of their own.
    """
    named, entry = isinstance(entry, str), spelled_out(entry)
    _check(entry)
    return [
        _read_pack(one, entry["name"], named, asked, pack_dir) for one in over_splits(entry, axes)
    ]


def axes_of(table: dict) -> dict[str, list]:
    """The axes of splits that a matrix or a pack states: `split` -> texts, `split_seed` -> numbers."""
    axes = {}
    if "splits" in table:
        texts = entries_of(table, "splits", (str,))
        series = [f"family:{family}" for family in FAMILIES]
        texts = [one for text in texts for one in (series if text in EVERY_FAMILY else [text])]
        axes["split"] = list(dict.fromkeys(str(parse_split_rule(text)) for text in texts))
    if "split_seeds" in table:
        axes["split_seed"] = entries_of(table, "split_seeds", (int,), lists_only=True)
        _refuse_negative("split_seeds", axes["split_seed"])
    return axes


def over_splits(entry: dict, axes: dict[str, list]) -> list[dict]:
    """The entry for each of its splits, or of the matrix's `axes` where it states none; the name says which, as `pack` would.

    >>> [one["name"] for one in over_splits({"name": "a", "split_seeds": [0, 1], "splits": ["random", "element:O"]}, {})]
    ['a', 'a-split1', 'a-element_O', 'a-element_O-split1']
    """
    axes = {key: values for key, values in axes.items() if key not in entry} | axes_of(entry)
    plain = {key: value for key, value in entry.items() if key not in AXES}
    found = []
    for values in itertools.product(*axes.values()):
        stated = dict(zip(axes, values, strict=True))
        split = parse_split_rule(stated.get("split", str(RANDOM)), stated.get("split_seed", 0))
        found.append(plain | stated | {"name": entry["name"] + split_suffix(split)})
    return found


def _read_pack(
    entry: dict, base: str, named: bool, asked: list[str], pack_dir: Path | str | None
) -> MatrixPack:
    name = entry["name"]
    properties = tuple(entries_of(entry, "properties", (str,)) if "properties" in entry else asked)
    path = pack_path(name, pack_dir)
    if path.exists():
        with open_pack(path) as pack:
            identity, units = dict(pack.identity), dict(pack.units)
            n_rows = {"train": pack.n_train, "val": pack.n_val, "test": pack.n_test}
            holds = {
                "n_features": pack.n_features,
                "n_rows": n_rows,
                "reported": pack.attrs["reported"],
            }
        stated = (
            {key: entry[key] for key in ("name", *AXES.values()) if key in entry}
            if named
            else entry
        )
        _refuse_another(path, stated, identity)
        split = rule_of_identity(identity["split"])
        return MatrixPack(name, base, split, None, path, properties, units, identity, **holds)
    if "source" not in entry:
        raise UserError(
            f"pack {name} is not in {path.parent} and nothing says how to build it; "
            "its name must be SOURCE-FEATURES, or it must be a mapping with name, source and features"
        )
    stated = mapping(entry.get("units", {}), f"units of pack {name}")
    resolved = resolve_source(entry["source"])
    # A table of the user's is not read to plan: it may have any property.
    source = resolved.source
    units = {one: PROPERTIES[one].unit for one in source.properties} | stated
    split = _split_of(entry)
    lacking = {symbol for family in source.lacks for symbol in FAMILIES[family]}
    never = split.by != RANDOM.by and lacking.issuperset(split.elements)
    impossible = (
        f"no row of {entry['source']} contains {join_with_or(split.elements)}" if never else ""
    )
    return MatrixPack(
        name,
        base,
        split,
        _options(entry, resolved, stated),
        path,
        properties,
        units,
        None,
        impossible,
    )


def spelled_out(entry: str | dict) -> dict:
    """A pack as a mapping; where it is named `<source>-<features>`, that says how it is built."""
    if isinstance(entry, dict):
        return entry
    source, _, sets = entry.rpartition("-")
    return {"name": entry} | ({"source": source, "features": sets} if source and sets else {})


def _split_of(entry: dict) -> SplitRule:
    return parse_split_rule(entry.get("split", str(RANDOM)), entry.get("split_seed", 0))


def _check(entry: dict) -> None:
    """Raises UserError where a pack has a key that is none, or is not of the right type."""
    for key in entry:
        check_choice(
            "key of a pack", key, {"name", "properties", "units", "filters", *PACK_OPTIONS, *AXES}
        )
    name = entry.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.endswith(".h5"):
        raise UserError(
            f"the name of a pack must be letters, digits and _.+=- and no ending, however: {name!r}"
        )
    kinds = {key: kind for key, (kind, _) in PACK_OPTIONS.items()} | {"filters": bool}
    for key in kinds.keys() & entry.keys():
        if not isinstance(entry[key], kinds[key]) or (
            isinstance(entry[key], bool) and key != "filters"
        ):
            raise UserError(
                f"{key} of pack {name} must be of type {kinds[key].__name__}, however: {entry[key]!r}"
            )
    for axis, key in AXES.items():
        if axis in entry and key in entry:
            raise UserError(f"pack {name} must have {key} or {axis}, however: both")
    _refuse_negative(f"split_seed of pack {name}", [entry.get("split_seed", 0)])
    _split_of(entry)


def _refuse_negative(what: str, seeds: list[int]) -> None:
    if min(seeds) < 0:
        raise UserError(f"{what} must not be negative, however: {min(seeds)}")


def _options(entry: dict, resolved: ResolvedSource, units: dict) -> tuple[str, ...]:
    """The options of `python -m irnet_hpc.pack`; names that it would not know are refused now."""
    sets = features.parse_feature_sets(entry.get("features", "magpie"))
    known_source = SOURCES.get(resolved.text) if resolved.is_named else None
    if features.need_structures(sets) and known_source and not known_source.structures:
        known = ", ".join(name for name, source in SOURCES.items() if source.structures)
        raise UserError(
            f"pack {entry['name']} needs structures, but {entry['source']} has formulas only; those that have them: {known}"
        )
    options = [
        text
        for key, (_, option) in PACK_OPTIONS.items()
        if key in entry
        for text in (option, str(entry[key]))
    ]
    options += [] if entry.get("filters", True) else ["--no-filters"]
    return (
        *options,
        *(text for name, unit in units.items() for text in ("--unit", f"{name}={unit}")),
    )


def _refuse_another(path: Path, entry: dict, identity: dict) -> None:
    """A pack of the right name that was built in another way would give the table other numbers."""
    split = rule_of_identity(identity["split"])
    built = {
        "features": set(identity["features"].split("+")),
        "split": str(split or RANDOM),
        "split_seed": split and split.seed,  # None: the table's own split
        "filters": bool(identity["filters"]),
    }
    stated = {key: entry[key] for key in built if key in entry and built[key] is not None}
    if "features" in stated:
        stated["features"] = set(stated["features"].split("+"))
    if "split" in stated:
        stated["split"] = str(parse_split_rule(stated["split"]))  # as the pack has it
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


def targets_of(
    packs: list[MatrixPack],
) -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[str]]:
    """The (pack, property) to train, those that do not exist with the reason, and notes on what cannot be known yet."""
    known = {"all", *PROPERTIES, *(name for pack in packs for name in pack.units)}
    targets, absent, notes = [], [], []
    for pack in packs:
        for name in pack.properties:
            parts = checked_properties(name)
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
            if set(checked_properties(name)) <= pack.units.keys():
                targets.append((pack.name, name))
            else:
                has = "the pack has" if pack.exists else "its source may have"
                absent.append((f"{pack.name} × {name}", f"{has} {', '.join(sorted(pack.units))}"))
    if not all(pack.exists or pack.impossible for pack in packs):
        notes.append(
            "whether packs that are not built yet have their properties could not be checked"
        )
    return targets, absent, notes
