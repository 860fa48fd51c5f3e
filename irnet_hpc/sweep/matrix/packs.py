"""Read the packs of a matrix: those that exist, with their content, and those to be built."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.data.benchmarks import MATBENCH, N_FOLDS
from irnet_hpc.data.duplicates import LOWEST_ENERGY
from irnet_hpc.data.elements import FAMILIES
from irnet_hpc.data.resolve import ResolvedSource, resolve_source
from irnet_hpc.data.splits import (
    RANDOM,
    SplitRule,
    join_with_or,
    parse_split_rule,
    rule_of_identity,
)
from irnet_hpc.errors import UserError
from irnet_hpc.pack.store import open_pack, pack_path
from irnet_hpc.sweep.matrix.fields import entries_of
from irnet_hpc.sweep.matrix.pack_keys import (
    AXES,
    READING,
    PackKeys,
    check_pack,
    options_of,
    over_splits,
    spelled_out,
    split_of,
)


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
    check_pack(entry)
    return [
        _read_pack(split_entry, entry["name"], named, defaults)
        for split_entry in over_splits(entry, defaults.axes)
    ]


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
        rule = pack.attrs.get("duplicates", LOWEST_ENERGY)
    _refuse_another(path, entry, identity, rule)
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
    split = None if source.is_verbatim else split_of(entry)
    lacking = {symbol for family in source.lacks for symbol in FAMILIES[family]}
    held_out = split.elements if split else ()
    never = bool(held_out) and lacking.issuperset(held_out)
    impossible = f"no row of {entry['source']} contains {join_with_or(held_out)}" if never else ""
    options = options_of(entry, resolved, stated_units)
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
        raise UserError(
            f"pack {name} must have no folds in a list, since only {MATBENCH}TASK has official "
            "ones; a number, such as folds: 5, deals the rows of any other table"
        )
    for key in ("split", "split_seed"):
        if source.is_verbatim and key in entry:
            raise UserError(
                f"pack {name} must have no {key}, since {resolved.text} has published parts"
            )


def _refuse_another(path: Path, entry: dict, identity: dict, rule: str) -> None:
    """Raise UserError if the file of a pack was not built with the settings of the matrix.

    With such a pack, the tables would show numbers that the matrix does not describe. `rule` is
    the rule for duplicates that the pack was built with.
    """
    split = rule_of_identity(identity["split"])
    built: dict[str, object] = {
        "source": identity["source"],
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
    if "source" in stated:
        stated["source"] = resolve_source(stated["source"]).identity
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
    if "properties_table" in stated:  # a pack records its name
        stated["properties_table"] = Path(str(stated["properties_table"])).name
    if "duplicates" not in reading:
        # Where no phases are told apart, `lowest-energy` takes the median, too.
        same = stated.get("duplicates") == LOWEST_ENERGY
        built["duplicates"] = LOWEST_ENERGY if same else rule
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
