"""Summarise a source before packing, and a pack with the fate of every row and value."""

from collections import Counter
from collections.abc import Iterable

from irnet_hpc.data.loading import Loaded
from irnet_hpc.data.materials import Rejected
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.splits import ROLES, describe_held_out
from irnet_hpc.pack.store import Pack


def describe_source(loaded: Loaded, columns: bool) -> str:
    """Describe a source: its rows, properties and columns, and values outside the usual range.

    Args:
        loaded: The source as it was read.
        columns: True if the table's own columns are used as features.
    """
    table = loaded.table
    sampled = f" sampled of {loaded.n_available:,}" if len(table) < loaded.n_available else ""
    lines = [
        f"{len(table):,} rows{sampled} of {loaded.source.title}, "
        f"properties {', '.join(loaded.units)}"
    ]
    if columns:
        lines.append(f"features from the table's own columns: {', '.join(table.columns)}")
    if table.ignored:
        lines.append(f"columns left out: {', '.join(table.ignored)}")
    for name, values in table.targets.items():
        if name not in PROPERTIES:
            continue
        low, high = PROPERTIES[name].low, PROPERTIES[name].high
        if n_unlikely := int(((values < low) | (values > high)).sum()):
            lines.append(
                f"warning: {n_unlikely:,} values of {name} are not between "
                f"{low:g} and {high:g} {loaded.units[name]}"
            )
    return "\n".join(lines)


def reasons(rejected: Iterable[Rejected]) -> str:
    """Count rejected rows by reason, the most frequent first."""
    counts = Counter(row.reason for row in rejected)
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())


def describe_rows(pack: Pack) -> str:
    """Make a table of how many rows and values of the source were packed, rejected and filtered."""
    lines = [f"{pack.attrs['n_read']:>10,} rows read"]
    lines += [f"{-count:>10,} {reason}" for reason, count in pack.attrs["rejected"].items()]
    lines.append(
        f"{pack.n_rows:>10,} packed: {pack.n_train:,} train, {pack.n_val:,} val, "
        f"{pack.n_test:,} test"
    )
    if held_out := describe_held_out(pack.identity["split"]):
        lines.append(f"{pack.n_test:>10,} held out as test: {held_out}")
    header = f"{'property':<20}{'unit':<10}{'filtered':>10}"
    lines += ["", header + "".join(f"{split:>10}" for split in ROLES)]
    for name, unit in pack.units.items():
        count = pack.attrs["reported"][name]
        n_filtered = sum(pack.attrs["filtered"].get(name, {}).values())
        row = f"{name:<20}{unit:<10}{n_filtered:>10,}"
        lines.append(row + "".join(f"{count[split]:>10,}" for split in ROLES))
    for counts in pack.attrs["filtered"].values():
        lines += [
            f"filtered: {count:,} values outside {rule}" for rule, count in counts.items() if count
        ]
    return "\n".join(lines)


def describe_pack(pack: Pack) -> str:
    """Describe a pack as text: its source, features, split, filters, hash and rows."""
    identity, attrs = pack.identity, pack.attrs
    fields = {
        "file": pack.path,
        "source": f"{identity['source']} (sha256 {identity['source_sha256'][:12]})",
        "features": f"{pack.features}, {pack.n_features} columns",
        "split": ", ".join(
            f"{key} {'+'.join(value) if isinstance(value, list) else value}"
            for key, value in identity["split"].items()
        ),
        "filters": "; ".join(identity["filters"]) or "none",
        "content": f"sha256 {identity['content_sha256'][:12]}",
        "created": f"{attrs['created']} by "
        + ", ".join(f"{name} {version}" for name, version in attrs["versions"].items()),
        "licence": attrs["licence"] or "not stated",
        "citation": attrs["citation"] or "not stated",
    }
    lines = [f"{name:<10}{value}" for name, value in fields.items()]
    return "\n".join([*lines, "", describe_rows(pack)])


def pack_facts(pack: Pack) -> dict:
    """Describe a pack as a dict for --json: its counts, units, reported values and identity."""
    described = ("n_read", "rejected", "filtered", "licence", "citation", "created", "versions")
    return {
        "file": str(pack.path),
        "n_rows": pack.n_rows,
        "n_features": pack.n_features,
        "rows": {"train": pack.n_train, "val": pack.n_val, "test": pack.n_test},
        "properties": {
            name: {"unit": unit, "reported": pack.attrs["reported"][name]}
            for name, unit in pack.units.items()
        },
        "identity": pack.identity,
        **{name: pack.attrs[name] for name in described},
    }
