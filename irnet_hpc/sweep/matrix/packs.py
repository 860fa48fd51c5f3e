"""Read the packs of a matrix: how each is built, what it contains, and the requested properties."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from irnet_hpc.data.benchmarks import MATBENCH, N_FOLDS
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
from irnet_hpc.runs.spec import check_properties
from irnet_hpc.sweep.matrix.fields import check_keys, check_values, entries_of

Seed = Annotated[int, Meta(ge=0)]
Fold = Annotated[int, Meta(ge=0, le=N_FOLDS - 1)]


@dataclasses.dataclass(frozen=True)
class PackKeys:
    """The keys of a pack that is given as a mapping."""

    name: Annotated[str, Meta(description="the name; the file is NAME.h5 in the folder of packs")]
    source: Annotated[
        str,
        Meta(
            description="a named source, or the path of a table: `pack --source`",
            extra={"default": "SOURCE of the name SOURCE-FEATURES"},
        ),
    ] = ""
    features: Annotated[str, Meta(description="feature sets joined by +: `pack --features`")] = (
        "magpie"
    )
    rows: Annotated[
        int,
        Meta(
            description="use only the first rows of the source: `pack --rows`",
            extra={"default": "all"},
        ),
    ] = 0
    split: Annotated[
        str, Meta(description="the rule that decides which rows are test rows: `pack --split`")
    ] = str(RANDOM)
    split_seed: Annotated[int, Meta(ge=0, description="the seed of the split")] = 0
    properties: Annotated[
        list[str],
        Meta(description="the pack's own properties", extra={"default": "those of the matrix"}),
    ] = dataclasses.field(default_factory=list)
    units: Annotated[
        dict, Meta(description="property -> unit, for properties that only your table has")
    ] = dataclasses.field(default_factory=dict)
    filters: Annotated[bool, Meta(description="false: do not filter out any values")] = True
    formula_column: Annotated[
        str,
        Meta(
            description="the header of the column of formulas: `pack --formula-column`",
            extra={"default": "recognised"},
        ),
    ] = ""
    rename: Annotated[
        dict, Meta(description="header -> the name by which the column is read: `pack --rename`")
    ] = dataclasses.field(default_factory=dict)
    drop: Annotated[
        list[str],
        Meta(description="headers that are not read: `pack --drop`", extra={"default": "none"}),
    ] = dataclasses.field(default_factory=list)
    missing: Annotated[
        list[str | int | float],
        Meta(
            description="texts of cells that mean not reported: `pack --missing`",
            extra={"default": "none"},
        ),
    ] = dataclasses.field(default_factory=list)
    sheet: Annotated[
        str,
        Meta(
            description="the sheet of an Excel workbook: `pack --sheet`",
            extra={"default": "the only one"},
        ),
    ] = ""
    duplicates: Annotated[
        Literal["lowest-energy", "mean", "median", "first", "error"] | None,
        Meta(
            description="the value of several rows of one formula: `pack --duplicates`",
            extra={"default": "by the table"},
        ),
    ] = None
    splits: Annotated[
        list[str],
        Meta(
            description="rules of the split, each of which gives a pack",
            extra={"default": "the matrix's list"},
        ),
    ] = dataclasses.field(default_factory=list)
    split_seeds: Annotated[
        list[Seed],
        Meta(
            description="seeds of the split, each of which gives a pack",
            extra={"default": "the matrix's list"},
        ),
    ] = dataclasses.field(default_factory=list)
    fold: Annotated[
        int | None,
        Meta(
            description="the official fold that is test, for a source `matbench:TASK`: "
            "`pack --fold`",
            extra={"rule": "a whole number from 0 to 4", "default": "none"},
        ),
    ] = None
    folds: Annotated[
        list[Fold],
        Meta(
            description="official folds, each of which gives a pack",
            extra={"default": "the matrix's list"},
        ),
    ] = dataclasses.field(default_factory=list)


# Keys of a pack that become options of `python -m irnet_hpc.pack`.
PACK_OPTIONS = {
    "source": "--source",
    "features": "--features",
    "rows": "--rows",
    "split": "--split",
    "split_seed": "--split-seed",
    "fold": "--fold",
    "formula_column": "--formula-column",
    "sheet": "--sheet",
    "duplicates": "--duplicates",
}
# Keys that say how a table is read, which a pack records if they are not the defaults.
READING = ("formula_column", "rename", "drop", "missing", "sheet", "duplicates")
# A key that lists splits -> the key of a pack that gets each of the listed values.
AXES = {"splits": "split", "split_seeds": "split_seed", "folds": "fold"}
# Entries of `splits` that stand for every family of elements in turn.
EVERY_FAMILY = ("families", "family:*")


@dataclasses.dataclass(frozen=True)
class MatrixPack:
    """A pack of the matrix: how it is built and, if it exists, what it contains."""

    name: str
    # The name in the matrix, without the suffix that a list of splits adds.
    base: str
    # The rule of the split; None: a column of the source decides, known once the pack exists.
    split: SplitRule | None
    # Options of `python -m irnet_hpc.pack`; None: the pack exists.
    options: tuple[str, ...] | None
    path: Path
    # The properties that the matrix requests of this pack, as written; this may be `all`.
    properties: tuple[str, ...]
    # property -> unit, for the properties that the pack has or, before it exists, may have.
    units: dict
    # None: it does not exist yet.
    identity: dict | None
    # Why the pack can never be built.
    impossible: str = ""
    # The other fields are known if the pack exists:
    n_features: int = 0
    # train, val or test -> rows
    n_rows: dict = dataclasses.field(default_factory=dict)
    # property -> train, val or test -> rows that report it
    reported: dict = dataclasses.field(default_factory=dict)

    @property
    def exists(self) -> bool:
        """True if the pack is built."""
        return self.identity is not None


class PackDefaults(NamedTuple):
    """The settings of a matrix for packs that have no settings of their own."""

    properties: Sequence[str] = ()
    # split -> texts, split_seed and fold -> numbers
    axes: Mapping[str, list] = {}
    pack_dir: Path | str | None = None


def read_packs(entry: str | dict, defaults: PackDefaults) -> list[MatrixPack]:
    """Read a pack in each of its splits.

    Args:
        entry: The name of a pack that exists, or a name `<source>-<features>`, or a mapping that
            says how to build it.
        defaults: The settings of the matrix for all packs.

    Raises:
        UserError: A key or value is wrong, or a pack of this name was built in another way.
    """
    named, entry = isinstance(entry, str), spelled_out(entry)
    _check(entry)
    return [
        _read_pack(split_entry, entry["name"], named, defaults)
        for split_entry in over_splits(entry, defaults.axes)
    ]


def axes_of(table: Mapping, record: type) -> dict[str, list]:
    """Read the keys `splits`, `split_seeds` and `folds` of a matrix or a pack.

    Returns:
        `split` -> rules as text, `split_seed` and `fold` -> numbers; without an entry for a key
        that is missing.
    """
    axes: dict[str, list] = {}
    if "splits" in table:
        series = [f"family:{family}" for family in FAMILIES]
        texts = [
            text
            for stated in entries_of(table, record, "splits")
            for text in (series if stated in EVERY_FAMILY else [stated])
        ]
        axes["split"] = list(dict.fromkeys(str(parse_split_rule(text)) for text in texts))
    if "split_seeds" in table:
        axes["split_seed"] = entries_of(table, record, "split_seeds")
    if "folds" in table:
        axes["fold"] = entries_of(table, record, "folds")
    return axes


def over_splits(entry: dict, axes: Mapping[str, list]) -> list[dict]:
    """Return the entry of a pack once for each of its splits, with the split in the pack's name.

    If the entry states no splits, those of the matrix (`axes`) are used. Names are formed as by
    `python -m irnet_hpc.pack`.

    >>> entry = {"name": "a", "split_seeds": [0, 1], "splits": ["random", "element:O"]}
    >>> [pack["name"] for pack in over_splits(entry, {})]
    ['a', 'a-split1', 'a-element_O', 'a-element_O-split1']
    """
    own = axes_of(entry, PackKeys)
    axes = {key: values for key, values in axes.items() if key not in entry} | own
    plain = {key: value for key, value in entry.items() if key not in AXES}
    entries = []
    for values in itertools.product(*axes.values()):
        stated = dict(zip(axes, values, strict=True))
        split = parse_split_rule(stated.get("split", str(RANDOM)), stated.get("split_seed", 0))
        fold = {**plain, **stated}.get("fold")
        suffix = split_suffix(split) if fold is None else f"-fold{fold}"
        entries.append(plain | stated | {"name": entry["name"] + suffix})
    return entries


def _read_pack(entry: dict, base: str, named: bool, defaults: PackDefaults) -> MatrixPack:
    """Read a pack of one split; `named` is true if only the pack's name was given."""
    properties = defaults.properties
    if "properties" in entry:
        properties = entries_of(entry, PackKeys, "properties", owner=f"pack {entry['name']}")
    path = pack_path(entry["name"], defaults.pack_dir)
    if path.exists():
        stated = entry
        if named:
            stated = {key: entry[key] for key in ("name", *AXES.values()) if key in entry}
        return _built_pack(path, stated, base, tuple(properties))
    if "source" not in entry:
        raise UserError(
            f"pack {entry['name']} is not in {path.parent}, and the matrix does not state how to "
            "build it; its name must be SOURCE-FEATURES, or it must be a mapping with name, source "
            "and features"
        )
    return _planned_pack(path, entry, base, tuple(properties))


def _built_pack(path: Path, entry: dict, base: str, properties: tuple[str, ...]) -> MatrixPack:
    """Read a pack that exists. Raises UserError if it was built in another way."""
    with open_pack(path) as pack:
        identity, units = dict(pack.identity), dict(pack.units)
        n_rows = {"train": pack.n_train, "val": pack.n_val, "test": pack.n_test}
        n_features, reported = pack.n_features, pack.attrs["reported"]
    _refuse_another(path, entry, identity)
    return MatrixPack(
        entry["name"],
        base,
        rule_of_identity(identity["split"]),
        None,
        path,
        properties,
        units,
        identity,
        n_features=n_features,
        n_rows=n_rows,
        reported=reported,
    )


def _planned_pack(path: Path, entry: dict, base: str, properties: tuple[str, ...]) -> MatrixPack:
    """Describe a pack that is still to be built."""
    stated_units = entry.get("units", {})
    resolved = resolve_source(entry["source"])
    # Planning does not read a user's own table, so the table may have any property.
    source = resolved.source
    units = source.unit_by_property() | stated_units
    check_published(entry, resolved)
    split = None if source.is_verbatim else _split_of(entry)
    lacking = {symbol for family in source.lacks for symbol in FAMILIES[family]}
    held_out = split.elements if split else ()
    never = bool(held_out) and lacking.issuperset(held_out)
    impossible = f"no row of {entry['source']} contains {join_with_or(held_out)}" if never else ""
    options = _options(entry, resolved, stated_units)
    return MatrixPack(
        entry["name"], base, split, options, path, properties, units, None, impossible
    )


def check_published(entry: dict, resolved: ResolvedSource) -> None:
    """Raise UserError unless a pack states a fold where its source has folds, and only there.

    A source with published parts has no other split.
    """
    source, name = resolved.source, entry["name"]
    if source.has_folds and "fold" not in entry:
        raise UserError(f"pack {name} of {resolved.text} must have fold or folds, from 0 to 4")
    if entry.get("fold", 0) not in range(N_FOLDS):
        raise UserError(f"fold of pack {name} must be from 0 to {N_FOLDS - 1}, got {entry['fold']}")
    if "fold" in entry and not source.has_folds:
        raise UserError(f"pack {name} must have no folds, which only {MATBENCH}TASK has")
    for key in ("split", "split_seed"):
        if source.is_verbatim and key in entry:
            raise UserError(
                f"pack {name} must have no {key}, since {resolved.text} has published parts"
            )


def spelled_out(entry: str | dict) -> dict:
    """Return a pack as a mapping; a name `<source>-<features>` states how to build the pack."""
    if isinstance(entry, dict):
        return entry
    source, _, sets = entry.rpartition("-")
    return {"name": entry} | ({"source": source, "features": sets} if source and sets else {})


def _split_of(entry: dict) -> SplitRule:
    return parse_split_rule(entry.get("split", str(RANDOM)), entry.get("split_seed", 0))


def _check(entry: dict) -> None:
    """Raise UserError if a pack has an unknown key or a value of a wrong type."""
    check_keys("key of a pack", entry, PackKeys)
    name = entry.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.endswith(".h5"):
        raise UserError(
            f"the name of a pack must be letters, digits and _.+=- and no ending, got {name!r:.80}"
        )
    lists = ("properties", "drop", "missing", *AXES)
    plain = {key: value for key, value in entry.items() if key not in lists}
    check_values(plain, PackKeys, f"pack {name}")
    for key in ("drop", "missing"):
        entries_of(entry, PackKeys, key, default=["none"], owner=f"pack {name}")
    for axis, key in AXES.items():
        if axis in entry and key in entry:
            raise UserError(f"pack {name} must have {key} or {axis}, got both")
    _split_of(entry)


def _options(entry: dict, resolved: ResolvedSource, units: dict) -> tuple[str, ...]:
    """List the options of `python -m irnet_hpc.pack`.

    Raises UserError for a name that the command does not accept.
    """
    sets = features.parse_feature_sets(entry.get("features", "magpie"))
    known_source = SOURCES.get(resolved.text) if resolved.is_named else None
    if features.need_structures(sets) and known_source and not known_source.structures:
        known = ", ".join(name for name, source in SOURCES.items() if source.structures)
        raise UserError(
            f"pack {entry['name']} needs structures, but {entry['source']} has formulas only; "
            f"sources with structures: {known}"
        )
    options = [
        text
        for key, option in PACK_OPTIONS.items()
        if entry.get(key) is not None
        for text in (option, str(entry[key]))
    ]
    options += [] if entry.get("filters", True) else ["--no-filters"]
    for name, unit in units.items():
        options += ["--unit", f"{name}={unit}"]
    for column, name in entry.get("rename", {}).items():
        options += ["--rename", f"{column}={name}"]
    for key in ("drop", "missing"):
        for text in entries_of(entry, PackKeys, key) if key in entry else ():
            options.append(f"--{key}={text}")
    return tuple(options)


def _refuse_another(path: Path, entry: dict, identity: dict) -> None:
    """Raise UserError if the file of a pack was not built with the settings of the matrix.

    With such a pack, the tables would show numbers that the matrix does not describe.
    """
    split = rule_of_identity(identity["split"])
    built: dict[str, object] = {
        "features": set(identity["features"].split("+")),
        "split": str(split or RANDOM),
        # None: the source's own split.
        "split_seed": split and split.seed,
        "fold": identity["split"]["seed"] if identity["split"]["by"] == "fold" else None,
        "filters": bool(identity["filters"]),
    }
    stated = {
        key: entry[key]
        for key in built
        if key in entry and (built[key] is not None or key == "fold")
    }
    if "features" in stated:
        stated["features"] = set(stated["features"].split("+"))
    if "split" in stated:
        # Compare in the form in which the pack stores it.
        stated["split"] = str(parse_split_rule(stated["split"]))
    if stated.get("filters"):
        # A source may have none.
        del stated["filters"]
    reading = identity.get("reading", {})
    for key in READING:
        if entry.get(key):
            given = entries_of(entry, PackKeys, key) if key in ("drop", "missing") else entry[key]
            stated[key] = sorted(map(str, given)) if isinstance(given, list) else given
            built[key] = reading.get(key)
    if "duplicates" not in reading and stated.get("duplicates") in ("lowest-energy", "median"):
        # One of them is the default, which is not recorded.
        del stated["duplicates"]
    n_rows = identity["n_source_rows"]
    if n_rows > entry.get("rows", n_rows):
        # The source may have fewer rows than requested.
        stated["rows"], built["rows"] = entry["rows"], n_rows
    for key, value in stated.items():
        if value != built[key]:
            raise UserError(
                f"{key} of pack {entry['name']} is not the one that {path} was built with, "
                f"got {entry[key]}; remove the file, or give the pack another name"
            )


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
