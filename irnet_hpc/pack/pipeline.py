"""Make a pack: find and read the source, select rows, compute features, write the file."""

import dataclasses
import logging
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from irnet_hpc.data.benchmarks import MATBENCH, N_FOLDS
from irnet_hpc.data.download.obtain import ensure
from irnet_hpc.data.duplicates import DUPLICATES, ENERGIES, LOWEST_ENERGY
from irnet_hpc.data.loading import DEFAULT_ROWS, Loaded, load_source
from irnet_hpc.data.raw_table import RawTable
from irnet_hpc.data.reading import Reading
from irnet_hpc.data.resolve import AS_IT_IS, ResolvedSource, resolve_source
from irnet_hpc.data.sources import Filter, hard_limits
from irnet_hpc.data.splits import (
    RANDOM,
    SplitRule,
    count_on_two_sides,
    fold_identity,
    parse_split_rule,
    split_identity,
    split_suffix,
)
from irnet_hpc.distributed.mpi import Ranks
from irnet_hpc.distributed.worker_pool import available_cores
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.features import sets as features
from irnet_hpc.features.sets import FEATURE_SETS
from irnet_hpc.files import NAME
from irnet_hpc.pack import blocks, store
from irnet_hpc.pack.build import assist, dismiss, write_pack
from irnet_hpc.pack.select import RULES, Selection, needs_ranking, select, split_and_order
from irnet_hpc.pack.summary import (
    describe_conflicts,
    describe_constants,
    describe_doubts,
    describe_faults,
    describe_reading,
    describe_rows,
    describe_source,
    describe_warnings,
    suspect_units,
)
from irnet_hpc.pack.twins import describe_told, find_twins
from irnet_hpc.pack.verbatim import list_kept

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PackOptions:
    """The options for making a pack; the defaults are the same as for the command."""

    # A name in SOURCES, `matminer:NAME`, a path to a table, or a DataFrame.
    source: "str | Path | pd.DataFrame"
    features: str = "magpie"  # feature sets, joined by +
    name: str | None = None  # name of the pack; None: from source, features and other options
    properties: tuple[str, ...] = ()  # properties to pack; empty: all whose unit is known
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)  # property -> unit
    rows: int | None = None  # size of a fixed random sample; for alloys: rows to make
    split: str = str(RANDOM)  # random, element:O, or family:halogens
    split_seed: int = 0
    filters: bool = True  # whether hard limits and the source's filters remove values
    # property -> lowest and highest value to keep, in its unit; infinite: no limit
    limits: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    data_dir: str | Path | None = None  # folder of raw tables; None: $IRNET_DATA, else data/
    pack_dir: str | Path | None = None  # folder of packs; None: $IRNET_PACKS, else packs/
    url: str | None = None  # another address for the source's service
    live: bool = False  # ask the source's service, though a wheel has the source's table
    wheels: tuple[str | Path, ...] = ()  # files of the wheels that have the source's table
    fold: int | None = None  # the fold that is test; needed by sources with folds
    workers: int | None = None  # worker processes per rank; None: the fastest number
    overwrite: bool = False  # replace an existing pack of the same name
    reading: Reading = AS_IT_IS  # how a table of one's own is read
    # The rule of DUPLICATES for rows of one formula; None: lowest-energy for named sources and
    # tables with ids or energies, else median.
    duplicates: str | None = None


@dataclasses.dataclass
class SameRows:
    """Keep what all folds of a table share; the first fold that is made fills it in."""

    loaded: Loaded | None = None
    selection: Selection | None = None


def pack_source(
    options: PackOptions, ranks: Ranks | None = None, same: SameRows | None = None
) -> Path | None:
    """Make a pack with all ranks of a launch, unless the pack exists.

    If a call was interrupted, the same call resumes the work.

    Args:
        options: The source, and how to pack it.
        ranks: The ranks that pack together, including this process; None: this process only.
        same: What earlier calls have read, selected and computed, if all options but the split and
            the name are the same.

    Returns:
        The path of the pack; None on ranks other than 0, which only compute.

    Raises:
        UserError: If an option, the source or a file is wrong, or if another pack has this name.
    """
    ranks = ranks or Ranks(0, 1, available_cores())
    if ranks.rank:
        assist(ranks)
        return None
    source = resolve_source(options.source, options.data_dir, reading=options.reading)
    split = split_rule(options, source)
    path = store.pack_path(pack_name(options, source, split), options.pack_dir)
    with blocks.hold_name(path):
        _make(options, source, split, path, ranks, same or SameRows())
    dismiss(ranks)
    return path


def split_rule(options: PackOptions, source: ResolvedSource) -> SplitRule:
    """Return the rule of the split. The fold of a source with folds is the seed of its split."""
    split = parse_split_rule(options.split, options.split_seed)
    known = source.source
    if not known.has_folds:
        if options.fold is not None:
            raise UserError(f"--fold is for {MATBENCH}TASK, got {source.text}")
        if known.is_verbatim and split != RANDOM:
            raise UserError(
                f"{source.text} has published parts, so --split must be {RANDOM} and --split-seed "
                f"0, got {split} and {split.seed}"
            )
        return split
    if split != RANDOM:
        raise UserError(
            f"{source.text} has official folds, so it takes --fold and no --split and "
            f"--split-seed, got {split} and {split.seed}"
        )
    if options.fold is None or options.fold not in range(N_FOLDS):
        choices = ", ".join(map(str, range(N_FOLDS)))
        got = "none" if options.fold is None else options.fold
        raise UserError(f"--fold of {source.text} must be one of {choices}, got {got}")
    return RANDOM._replace(seed=options.fold)


def _make(
    options: PackOptions,
    source: ResolvedSource,
    split: SplitRule,
    path: Path,
    ranks: Ranks,
    same: SameRows,
) -> None:
    began = time.monotonic()
    feature_sets = features.parse_feature_sets(options.features)
    features.check_installed(feature_sets)
    for note in features.experimental_notes(feature_sets):
        logger.info(note)
    if source.source.is_verbatim and options.limits:
        raise UserError(
            f"{source.text} is packed as it was published, so it takes no --limit, got "
            f"{', '.join(options.limits)}"
        )
    structures = features.need_structures(feature_sets)
    ensure(source, options.url, structures, options.live, options.wheels)
    if same.loaded is None:
        logger.info(f"reading {source.text}")
        same.loaded = load(options, source, feature_sets)
    loaded = same.loaded
    if loaded.table.role and split != RANDOM:
        raise UserError(
            f"cannot split by {split} with seed {split.seed}: the table has a column named split, "
            "which decides the split; remove the column or the options --split and --split-seed"
        )
    ranking = needs_ranking(feature_sets, loaded.source)
    filters = filters_of(options, loaded, ranking)
    identity = identify(loaded, feature_sets, filters, split)
    if settings := options.reading.settings() | duplicates_of(loaded, ranking):
        identity["reading"] = settings
    identity["n_source_rows"] = n_rows = min(len(loaded.table), options.rows or len(loaded.table))
    if path.exists() and options.overwrite:
        announce_stale(path, identity)
    elif path.exists():
        check_same(path, identity)
        logger.info(f"the pack exists already: {path}")
        # Blocks are left over if a process was killed after it had finished the pack.
        blocks.remove_blocks(path)
        return
    for note in describe_reading(loaded):
        logger.info(note)
    logger.info(describe_source(loaded, n_rows, columns="columns" in feature_sets))
    if same.selection is None:
        same.selection = select(
            loaded.table, feature_sets, loaded.source, filters, tuple(loaded.units), n_rows
        )._replace(known={} if split.by == "folds" else None)
    selection = same.selection
    if loaded.source.is_verbatim:
        list_kept(path, loaded, feature_sets)
    for line in describe_conflicts(selection, loaded):
        logger.info(line)
    for warning in (*describe_faults(selection), *suspect_units(selection)):
        logger.warning(f"warning: {warning}")
    materials = split_and_order(selection.materials, split)
    assert materials.role is not None
    if n_both := count_on_two_sides(materials.reduced, materials.role):
        logger.warning(
            f"warning: the table's own split has {n_both:,} formulas in more than one of its parts"
        )
    for twin in find_twins(materials):
        logger.warning(twin)
    for sentence in describe_told(feature_sets, materials.targets):
        logger.warning(f"warning: {sentence}")
    attrs = {
        "n_read": n_rows,
        "notes": loaded.notes,
        "filtered": selection.filtered,
        "combined": selection.combined,
        "duplicates": loaded.source.duplicates,
        "conflicts": [conflict._asdict() for conflict in selection.conflicts],
        "licence": loaded.source.licence,
        "citation": loaded.source.citation,
    }
    doubts = describe_doubts(materials, loaded.units, not loaded.source.is_verbatim)
    for doubt in (*doubts, *describe_constants(materials)):
        logger.warning(f"warning: {doubt}")
    selection = selection._replace(materials=materials)
    write_pack(path, selection, identity, attrs, ranks, options.workers)
    with store.open_pack(path) as pack:
        n_mib = path.stat().st_size / 2**20
        logger.info(describe_rows(pack))
        for warning in describe_warnings(pack):
            logger.warning(warning)
        logger.info(f"wrote {path}, {n_mib:,.1f} MiB, in {time.monotonic() - began:.1f} s")
        if loaded.source.is_verbatim and pack.n_rows < loaded.n_available:
            n_lost = loaded.n_available - pack.n_rows
            logger.warning(
                f"warning: {n_lost:,} rows of {source.text} are not packed, so numbers of this "
                "pack are not comparable to published ones"
            )
        if pack.attrs["n_rejected"]:
            logger.info(f"the rejected rows are in {blocks.rejected_path(path)}")
        if selection.lost:
            logger.info(f"the values left out are in {blocks.lost_path(path)}")


def load(options: PackOptions, source: ResolvedSource, feature_sets: tuple[str, ...]) -> Loaded:
    """Read the source, whose table must be there, and choose the rule for its duplicates."""
    if options.duplicates is not None:
        check_choice("rule (of --duplicates)", options.duplicates, DUPLICATES)
    # A sample is taken only after all rows have decided which row stands for a composition.
    loaded = load_source(
        source,
        n_rows=options.rows if source.is_computed else None,
        properties=options.properties,
        units=options.units,
        columns="columns" in feature_sets,
        structures=features.need_structures(feature_sets),
    )
    if options.duplicates and not needs_ranking(feature_sets, loaded.source):
        raise UserError(
            f"--duplicates is for features of formulas alone, but with {options.features} each row "
            "of a formula has features of its own, and all rows are packed"
        )
    by_default = LOWEST_ENERGY if source.is_named or _has_phases(loaded.table) else "median"
    rule = options.duplicates or by_default
    return loaded._replace(source=loaded.source._replace(duplicates=rule))


def _has_phases(table: RawTable) -> bool:
    """Return True if a table tells phases of one formula apart, by ids or by energies."""
    return (
        table.has_id is None
        or bool(table.has_id.any())
        or any(
            not np.isnan(table.targets[name]).all() for name in ENERGIES if name in table.targets
        )
    )


def duplicates_of(loaded: Loaded, ranking: bool) -> dict[str, str]:
    """Return the rule for duplicates, as the identity of a pack records it.

    Where no phases are told apart, the median is what `lowest-energy` takes as well, so packs of
    such tables are the same as those of earlier versions.
    """
    rule = loaded.source.duplicates
    same = rule == LOWEST_ENERGY or (rule == "median" and not _has_phases(loaded.table))
    return {} if same or not ranking else {"duplicates": rule}


def filters_of(options: PackOptions, loaded: Loaded, ranking: bool) -> list[Filter]:
    """Return the filters of values, in the order in which they act.

    Raises:
        UserError: If limits are for a property that is not packed, or exclude each other.
    """
    # A property that is not packed may still decide between rows, so its limits act as well.
    known = list(loaded.table.targets) if ranking else list(loaded.units)
    own = []
    for given, (low, high) in options.limits.items():
        name = loaded.headings.name_of(given) if loaded.headings else given
        check_choice("property (of --limit)", name, loaded.units)
        if not low < high:
            raise UserError(
                f"limits of {name} must be a lower and a higher number, got {low:g} and {high:g}"
            )
        own.append(Filter(name, low, high, closed=True, unit=loaded.units[name]))
    if not options.filters or loaded.source.is_verbatim:
        return own
    rules = [rule for rule in loaded.source.filters if rule.property in known]
    rules = [rule for rule in rules if rule.property in loaded.units or rule.deviations == math.inf]
    return [*hard_limits(known), *own, *rules]


def pack_name(options: PackOptions, source: ResolvedSource, split: SplitRule) -> str:
    """Return the given name of a pack, or make one from source, features and other options.

    Raises:
        UserError: If the name cannot name a file, or a number in the options is out of range.
    """
    for field in ("rows", "workers"):
        value = getattr(options, field)
        if value is not None and value < 1:
            raise UserError(f"{field} must be at least 1, got {value}")
    if options.split_seed < 0:
        raise UserError(f"split seed must not be negative, got {options.split_seed}")
    name = options.name
    if name is None:
        name = f"{source.name}-{options.features}"
        name += f"-{'+'.join(map(_plain, options.properties))}" if options.properties else ""
        default_rows = DEFAULT_ROWS if source.is_computed else None
        name += f"-n{options.rows}" if options.rows not in (None, default_rows) else ""
        for limited, (low, high) in options.limits.items():
            name += f"-{_plain(limited)}={low:.12g}..{high:.12g}"
        fold = f"-fold{options.fold}" if options.fold is not None else ""
        name += fold or split_suffix(split)
        name += "" if options.filters else "-nofilters"
    if not NAME.fullmatch(name) or name.endswith(".h5"):
        raise UserError(
            f"a pack's name must be letters, digits and _.+=-, without the ending .h5, got {name!r}"
        )
    return name


def _plain(header: str) -> str:
    """Replace the characters of a column's header that a pack's name cannot have."""
    return header if NAME.fullmatch(header) else re.sub(r"[^A-Za-z0-9_.+=-]+", "_", header)


def identify(
    loaded: Loaded, feature_sets: tuple[str, ...], filters: list[Filter], split: SplitRule
) -> dict:
    """Return the identity of a pack, except for the fields that are known only after packing."""
    return {
        "source": loaded.identity,
        "source_sha256": loaded.table.sha256,
        "rules": RULES,
        "n_source_rows": len(loaded.table),
        "properties": loaded.units,
        "features": "+".join(feature_sets),
        "feature_versions": {name: FEATURE_SETS[name].version for name in feature_sets},
        "filters": [str(rule) for rule in filters],
        "split": _split_identity(loaded, split),
    }


def _split_identity(loaded: Loaded, split: SplitRule) -> dict:
    if loaded.table.fold is not None:
        return fold_identity(split.seed)
    return {"by": "column"} if loaded.table.role else split_identity(split)


def _differing(pack: store.Pack, identity: dict) -> list[str]:
    """List the fields of an identity that a pack does not have so."""
    names = dict.fromkeys((*identity, *store.OPTIONAL))
    return [name for name in names if pack.identity.get(name) != identity.get(name)]


def announce_stale(path: Path, identity: dict) -> None:
    """Say that results of the existing pack become stale, if another pack replaces it."""
    try:
        with store.open_pack(path) as pack:
            differing = _differing(pack, identity)
    except UserError:  # a damaged pack is replaced, too
        return
    if differing:
        logger.warning(
            f"note: {path} is replaced by a different pack, which differs in "
            f"{', '.join(differing)}; results of the earlier pack are stale from now on, and "
            "tables show them apart"
        )


def check_same(path: Path, identity: dict) -> None:
    """Check that the existing pack is the one that these options would make.

    Raises:
        UserError: If the existing pack is another one, or damaged.
    """
    try:
        with store.open_pack(path) as pack:
            differing = _differing(pack, identity)
    except UserError as error:
        raise UserError(f"{error}; overwrite the pack, or give another name") from None
    if differing:
        raise UserError(
            f"{path} exists and is a different pack, which differs in {', '.join(differing)}; "
            "overwrite the pack, which makes its results stale, or give another name"
        )
