"""What packing says: of a source before it is packed, and of a pack where every row and every value went."""

from collections import Counter
from collections.abc import Iterable

from irnet_hpc.data.loading import Loaded
from irnet_hpc.data.materials import Rejected
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.splits import ROLES, describe_held_out
from irnet_hpc.pack.store import Pack


def introduce(loaded: Loaded, columns: bool) -> str:
    """What a source holds, and which of its columns become what."""
    table = loaded.table
    sampled = f" sampled of {loaded.n_available:,}" if len(table) < loaded.n_available else ""
    lines = [
        f"{len(table):,} rows{sampled} of {loaded.source.title}, properties {', '.join(loaded.units)}"
    ]
    if columns:
        lines.append(f"features of the table's own: {', '.join(table.columns)}")
    if table.ignored:
        lines.append(f"columns left out: {', '.join(table.ignored)}")
    for name, values in table.targets.items():
        if name in PROPERTIES:
            low, high = PROPERTIES[name].low, PROPERTIES[name].high
            if n_unlikely := int(((values < low) | (values > high)).sum()):
                unit = loaded.units[name]
                lines.append(
                    f"warning: {n_unlikely:,} values of {name} are not between {low:g} and {high:g} {unit}"
                )
    return "\n".join(lines)


def reasons(rejected: Iterable[Rejected]) -> str:
    """Counts of rejected rows by reason, the most frequent first."""
    return ", ".join(
        f"{count:,} {reason}"
        for reason, count in Counter(row.reason for row in rejected).most_common()
    )


def account(found: Pack) -> str:
    """Where every row of the source went, and every value."""
    lines = [f"{found.attrs['n_read']:>10,} rows read"]
    lines += [f"{-count:>10,} {reason}" for reason, count in found.attrs["rejected"].items()]
    lines += [
        f"{found.n_rows:>10,} packed: {found.n_train:,} train, {found.n_val:,} val, {found.n_test:,} test",
    ]
    if what := describe_held_out(found.identity["split"]):
        lines.append(f"{found.n_test:>10,} held out as test: {what}")
    lines += [
        "",
        f"{'property':<20}{'unit':<10}{'filtered':>10}{'train':>10}{'val':>10}{'test':>10}",
    ]
    for name, unit in found.units.items():
        count = found.attrs["reported"][name]
        n_filtered = sum(found.attrs["filtered"].get(name, {}).values())
        lines.append(
            f"{name:<20}{unit:<10}{n_filtered:>10,}"
            + "".join(f"{count[split]:>10,}" for split in ROLES)
        )
    for counts in found.attrs["filtered"].values():
        lines += [
            f"filtered: {count:,} values outside {rule}" for rule, count in counts.items() if count
        ]
    return "\n".join(lines)


def describe(found: Pack) -> str:
    """What is in a pack."""
    sums = {
        "file": found.path,
        "source": f"{found.identity['source']} (sha256 {found.identity['source_sha256'][:12]})",
        "features": f"{found.features}, {found.n_features} columns",
        "split": ", ".join(
            f"{key} {'+'.join(value) if isinstance(value, list) else value}"
            for key, value in found.identity["split"].items()
        ),
        "filters": "; ".join(found.identity["filters"]) or "none",
        "content": f"sha256 {found.identity['content_sha256'][:12]}",
        "created": f"{found.attrs['created']} by "
        + ", ".join(f"{k} {v}" for k, v in found.attrs["versions"].items()),
        "licence": found.attrs["licence"] or "not stated",
        "citation": found.attrs["citation"] or "not stated",
    }
    return "\n".join([*(f"{name:<10}{value}" for name, value in sums.items()), "", account(found)])


def facts(found: Pack) -> dict:
    """The same for a program: counts, units, values reported in each split, and all that decided the content."""
    return {
        "file": str(found.path),
        "n_rows": found.n_rows,
        "n_features": found.n_features,
        "rows": {"train": found.n_train, "val": found.n_val, "test": found.n_test},
        "properties": {
            name: {"unit": unit, "reported": found.attrs["reported"][name]}
            for name, unit in found.units.items()
        },
        "identity": found.identity,
        **{
            key: found.attrs[key]
            for key in (
                "n_read",
                "rejected",
                "filtered",
                "licence",
                "citation",
                "created",
                "versions",
            )
        },
    }
