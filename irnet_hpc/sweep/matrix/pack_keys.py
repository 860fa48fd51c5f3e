"""Read how a matrix states a pack: its keys, its splits, and the options of `pack` they become."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from irnet_hpc.data.benchmarks import N_FOLDS
from irnet_hpc.data.elements import FAMILIES
from irnet_hpc.data.resolve import ResolvedSource
from irnet_hpc.data.sources import SOURCES
from irnet_hpc.data.splits import (
    MAX_FOLDS,
    RANDOM,
    SplitRule,
    fold_rules,
    parse_split_rule,
    split_suffix,
)
from irnet_hpc.errors import UserError
from irnet_hpc.features import sets as features
from irnet_hpc.files import NAME
from irnet_hpc.sweep.matrix.fields import check_keys, check_values, entries_of

Seed = Annotated[int, Meta(ge=0)]
Fold = Annotated[int, Meta(ge=0, le=N_FOLDS - 1)]
NumberOfFolds = Annotated[int, Meta(ge=2, le=MAX_FOLDS)]
Repeats = Annotated[int, Meta(ge=1, le=100)]


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
    properties_table: Annotated[
        str,
        Meta(
            description="the table with the properties of structures: `pack --properties-table`",
            extra={"default": "the only one in the folder"},
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
        NumberOfFolds | list[Fold],
        Meta(
            description="the number of folds to which a table is dealt, or the official folds of a "
            "source `matbench:TASK`; each fold gives a pack: `pack --folds`",
            extra={"default": "the matrix's"},
        ),
    ] = dataclasses.field(default_factory=list)
    repeats: Annotated[
        Repeats,
        Meta(
            description="how many times the table is dealt anew to its folds: `pack --repeats`",
            extra={"default": "the matrix's"},
        ),
    ] = 1


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
    "properties_table": "--properties-table",
    "duplicates": "--duplicates",
}
# Keys that say how a table is read, which a pack records if they are not the defaults.
READING = (
    "formula_column",
    "rename",
    "drop",
    "missing",
    "sheet",
    "properties_table",
    "duplicates",
)
# A key that lists splits -> the key of a pack that gets each of the listed values.
AXES = {"splits": "split", "split_seeds": "split_seed", "folds": "fold"}
# The axis that a number of folds makes: pairs of a rule of the split and its seed.
DEALT = "dealt"
# Entries of `splits` that stand for every family of elements in turn.
EVERY_FAMILY = ("families", "family:*")


def spelled_out(entry: str | dict) -> dict:
    """Return a pack as a mapping; a name `<source>-<features>` states how to build the pack."""
    if isinstance(entry, dict):
        return entry
    source, _, sets = entry.rpartition("-")
    return {"name": entry} | ({"source": source, "features": sets} if source and sets else {})


def split_of(entry: dict) -> SplitRule:
    """Return the rule of the split that a pack of one split states."""
    return parse_split_rule(entry.get("split", str(RANDOM)), entry.get("split_seed", 0))


def check_pack(entry: dict) -> None:
    """Raise UserError if a pack has an unknown key or a value of a wrong type."""
    check_keys("key of a pack", entry, PackKeys)
    name = entry.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.endswith(".h5"):
        raise UserError(
            f"the name of a pack must be letters, digits and _.+=- and no ending, got {name!r:.80}"
        )
    is_number = isinstance(entry.get("folds"), int)
    lists = ("properties", "drop", "missing", *(axis for axis in AXES if axis != "folds"))
    lists += () if is_number else ("folds",)
    plain = {key: value for key, value in entry.items() if key not in lists}
    check_values(plain, PackKeys, f"pack {name}")
    for key in ("drop", "missing"):
        entries_of(entry, PackKeys, key, default=["none"], owner=f"pack {name}")
    for axis, key in AXES.items():
        if axis in entry and key in entry:
            raise UserError(f"pack {name} must have {key} or {axis}, got both")
    if is_number and (both := {*AXES.values()}.intersection(entry)):
        raise UserError(f"pack {name} must have folds or {' and '.join(sorted(both))}, got both")
    split_of(entry)


def axes_of(table: Mapping, record: type) -> dict[str, list]:
    """Read the keys `splits`, `split_seeds`, `folds` and `repeats` of a matrix or a pack.

    Returns:
        `split` -> rules as text, `split_seed` and `fold` -> numbers, DEALT -> (rule, seed); without
        an entry for a key that is missing.
    """
    axes: dict[str, list] = {}
    is_number = isinstance(table.get("folds"), int)
    if "repeats" in table and not is_number:
        raise UserError("repeats must stand beside folds with a number, such as folds: 5")
    if is_number:
        check_values({key: table[key] for key in ("folds", "repeats") if key in table}, record)
        if both := {"splits", "split_seeds"}.intersection(table):
            raise UserError(f"folds: {table['folds']} deals all rows, so it takes no {min(both)}")
        rules = fold_rules(table["folds"], table.get("repeats", 1))
        return {DEALT: [(str(rule), rule.seed) for rule in rules]}
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
    axes = {key: values for key, values in axes.items() if key not in entry}
    if own.keys() | entry.keys() & {*AXES.values()}:
        axes.pop(DEALT, None)
    axes = own if DEALT in own else axes | own
    plain = {key: value for key, value in entry.items() if key not in (*AXES, "repeats")}
    entries = []
    for values in itertools.product(*axes.values()):
        stated = dict(zip(axes, values, strict=True))
        if DEALT in stated:
            stated["split"], stated["split_seed"] = stated.pop(DEALT)
        split = parse_split_rule(stated.get("split", str(RANDOM)), stated.get("split_seed", 0))
        fold = {**plain, **stated}.get("fold")
        suffix = split_suffix(split) if fold is None else f"-fold{fold}"
        entries.append(plain | stated | {"name": entry["name"] + suffix})
    return entries


def options_of(entry: dict, resolved: ResolvedSource, units: dict) -> tuple[str, ...]:
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
