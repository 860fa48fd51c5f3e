"""Say what packing a table would read, rename, convert, merge and leave out, and write nothing."""

from collections import Counter

from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from irnet_hpc.features import sets as features
from irnet_hpc.pack.pipeline import PackOptions, filters_of, load, pack_name, split_rule
from irnet_hpc.pack.select import (
    Selection,
    count_reported,
    needs_ranking,
    select,
    split_and_order,
    where,
)
from irnet_hpc.pack.summary import (
    describe_conflicts,
    describe_constants,
    describe_doubts,
    describe_empty_roles,
    describe_faults,
    describe_few,
    describe_reading,
    describe_source,
    suspect_units,
)

N_EXAMPLES = 3


def check_source(options: PackOptions) -> list[str]:
    """Read a table as packing would, and describe what comes of it.

    Features are not computed, so rows whose features cannot be computed are not among the rows left
    out. Nothing is downloaded.

    Args:
        options: The table, and how it would be packed.

    Returns:
        The lines of the description.

    Raises:
        UserError: If the table cannot be packed with these options.
    """
    source = resolve_source(options.source, options.data_dir, reading=options.reading)
    split = split_rule(options, source)
    name = pack_name(options, source, split)
    feature_sets = features.parse_feature_sets(options.features)
    if not source.is_computed:
        source.require_table(features.need_structures(feature_sets))
    loaded = load(options, source, feature_sets)
    filters = filters_of(options, loaded, needs_ranking(feature_sets, loaded.source))
    n_rows = min(len(loaded.table), options.rows or len(loaded.table))
    selection = select(
        loaded.table, feature_sets, loaded.source, filters, tuple(loaded.units), n_rows
    )
    doubts = [*describe_faults(selection), *suspect_units(selection)]
    if not len(selection.materials):
        raise UserError(
            f"no row is left to pack, since all {len(selection.rejected):,} were rejected: "
            f"{', '.join(_rejections(selection))}"
        )
    materials = split_and_order(selection.materials, split)
    doubts += describe_doubts(materials, loaded.units)
    doubts += [*describe_constants(materials), *describe_few(materials)]
    doubts += describe_empty_roles(count_reported(materials))
    return [
        *describe_reading(loaded),
        describe_source(loaded, n_rows, columns="columns" in feature_sets),
        *(f"property {name} in {unit}" for name, unit in loaded.units.items()),
        *_merged(selection),
        *describe_conflicts(selection, loaded),
        *(f"left out: {text}" for text in _rejections(selection)),
        *(
            f"filtered: {n:,} values outside {rule}"
            for counts in selection.filtered.values()
            for rule, n in counts.items()
            if n
        ),
        *(f"warning: {doubt}" for doubt in doubts),
        f"{len(materials):,} rows would be packed as {name}; nothing was written",
    ]


def _rejections(selection: Selection) -> list[str]:
    """Count the rejected rows by reason, each with its first lines."""
    counts = Counter(row.reason for row in selection.rejected)
    texts = []
    for reason, n in counts.most_common():
        lines = sorted(row.line for row in selection.rejected if row.reason == reason)
        more = ", ..." if n > N_EXAMPLES else ""
        if selection.places:
            first = "; ".join(where(line, selection.places) for line in lines[:N_EXAMPLES])
        else:
            first = "line " + ", ".join(map(str, lines[:N_EXAMPLES]))
        texts.append(f"{n:,} {reason} ({first}{more})")
    return texts


def _merged(selection: Selection) -> list[str]:
    """Count the values that are a median or a mean of several rows."""
    return [
        f"{n:,} values of {name} are made of several that disagree"
        for name, n in selection.combined.items()
    ]
