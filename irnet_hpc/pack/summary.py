"""Summarise a source before packing, and a pack with the fate of every row and value."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from irnet_hpc.data.codes import are_codes
from irnet_hpc.data.duplicates import ENERGIES
from irnet_hpc.data.loading import Loaded
from irnet_hpc.data.materials import Materials, Rejected
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.sources import are_outliers
from irnet_hpc.data.splits import ROLES, describe_held_out
from irnet_hpc.errors import UserError
from irnet_hpc.pack.select import Selection, describe_conflict, where
from irnet_hpc.pack.store import Pack

N_EXAMPLES = 3
FEW_ROWS = 50
MAX_GONE = 0.2  # share of a property's values


def describe_source(loaded: Loaded, n_rows: int, columns: bool) -> str:
    """Describe a source: its rows, properties and columns.

    Args:
        loaded: The source as it was read.
        n_rows: The number of rows that are used.
        columns: True if the table's own columns are used as features.
    """
    table = loaded.table
    sampled = f" sampled of {loaded.n_available:,}" if n_rows < loaded.n_available else ""
    lines = [
        f"{n_rows:,} rows{sampled} of {loaded.source.title}, properties {', '.join(loaded.units)}"
    ]
    if columns:
        lines.append(f"features from the table's own columns: {', '.join(table.columns) or 'none'}")
    left_out = [*table.ignored, *(table.targets.keys() - loaded.units.keys())]
    if left_out:
        lines.append(f"columns left out: {', '.join(sorted(left_out))}")
    return "\n".join(lines)


def describe_reading(loaded: Loaded) -> list[str]:
    """Say which columns were recognised, and how cells were read that are no plain numbers."""
    return [*(loaded.headings.notes if loaded.headings else ()), *loaded.table.notes]


def describe_faults(selection: Selection) -> list[str]:
    """Name the rows that are left out for a cell that cannot be read; one line, or none."""
    faulty = [row for row in selection.rejected if row.text]
    examples = ", ".join(
        where(row.line, selection.places)
        + (f", {row.column} {row.text.strip()!r:.40}" if row.column else "")
        for row in faulty[:N_EXAMPLES]
    )
    more = ", ..." if len(faulty) > N_EXAMPLES else ""
    return [
        f"{len(faulty):,} row{'s' if len(faulty) > 1 else ''} left out for cells that cannot be "
        f"read: {examples}{more}; --strict stops instead"
    ] * bool(faulty)


def describe_conflicts(selection: Selection, loaded: Loaded) -> list[str]:
    """Say by which rule rows of one formula were merged, and how far they disagree."""
    if not selection.conflicts:
        return []
    rule = loaded.source.duplicates
    has_energy = any(name in loaded.table.targets for name in ENERGIES)
    phase = "the phase of lowest energy" if has_energy else "the id with the most properties"
    texts = {
        "lowest-energy": f"{phase} is packed, with its own values",
        "median": "the median is packed",
        "mean": "the mean is packed",
        "first": "the first value is packed",
    }
    return [
        *(describe_conflict(conflict, selection.places) for conflict in selection.conflicts),
        f"{texts[rule]} (--duplicates {rule})",
    ]


def describe_doubts(
    materials: Materials, units: Mapping[str, str], with_hint: bool = True
) -> list[str]:
    """Name the packed values that a user should look at, with their rows, one line per kind.

    They are values outside the plausible range of their property, values that look like codes for
    "not reported", such as -9999, and values far from all others.

    Args:
        materials: The materials that are packed.
        units: Property -> unit.
        with_hint: True to name the option that removes values, which benchmarks refuse.
    """
    code = "look like a code for a value that is not reported"
    doubts = []
    for name, values in zip(materials.column_labels, materials.columns.T, strict=True):
        doubts += _doubt(materials, name, values, {code: are_codes(values) | _minus_ones(values)})
    for name, unit in units.items():
        values = materials.targets[name]
        codes = are_codes(values)
        if name not in PROPERTIES:
            codes |= _minus_ones(values)
        kinds = {code: codes}
        if name in PROPERTIES:
            low, high = PROPERTIES[name].low, PROPERTIES[name].high
            unlikely = ((values < low) | (values > high)) & ~codes
            kinds[f"are not between {low:g} and {high:g} {unit}"] = unlikely
        else:
            far = are_outliers(np.where(codes, np.nan, values), 10)
            # A property that spans orders of magnitude has many such values, and none is doubtful.
            if far.sum() <= max(N_EXAMPLES, len(values) // 100):
                kinds["are far from all others"] = far
        hint = f"; --limit {name}=LOW:HIGH removes values" if with_hint else ""
        doubts += [doubt + hint for doubt in _doubt(materials, name, values, kinds)]
    return doubts


def describe_constants(materials: Materials) -> list[str]:
    """Name the properties whose values are all equal."""
    equal = {
        name: values[~np.isnan(values)]
        for name, values in materials.targets.items()
        if np.unique(values[~np.isnan(values)]).size == 1
    }
    return [
        f"all {len(values):,} values of {name} are {values[0]:.6g}, so a model can only learn this "
        "constant"
        for name, values in equal.items()
        if len(values) > 1
    ]


def describe_few(materials: Materials) -> list[str]:
    """Name the properties that few rows report."""
    n_reported = {name: int((~np.isnan(y)).sum()) for name, y in materials.targets.items()}
    return [
        f"only {n:,} rows report {name}; with fewer than {FEW_ROWS}, a few of them decide the "
        "errors of every model"
        for name, n in n_reported.items()
        if n < FEW_ROWS
    ]


def suspect_units(selection: Selection) -> list[str]:
    """Name properties from which limits removed so many values that the unit may be wrong.

    Raises:
        UserError: If no value of a property is left.
    """
    suspicions = []
    for name, values in selection.materials.targets.items():
        n_left = int((~np.isnan(values)).sum())
        rules = selection.filtered.get(name, {})
        gone = [one for one in selection.lost if one.property == name and one.reason in rules]
        if len(gone) <= MAX_GONE * (n_left + len(gone)):
            continue
        text = (
            f"{len(gone):,} of {n_left + len(gone):,} values of {name} are outside the limits, "
            f"such as {gone[0].value:g} in line {gone[0].line} (not {gone[0].reason}); is the "
            "column in another unit?"
        )
        if not n_left:
            raise UserError(f"{text} --no-filters keeps values that no --limit excludes")
        suspicions.append(text)
    return suspicions


def _doubt(
    materials: Materials, name: str, values: np.ndarray, kinds: Mapping[str, np.ndarray]
) -> list[str]:
    doubts = []
    for kind, mask in kinds.items():
        rows = np.flatnonzero(mask)[np.argsort(materials.line[mask])]
        examples = [
            f"line {materials.line[row]} ({materials.formula[row]}) {values[row]:.6g}"
            for row in rows[:N_EXAMPLES]
        ]
        examples += ["..."] if len(rows) > N_EXAMPLES else []
        if len(rows):
            doubts.append(f"{len(rows):,} values of {name} {kind}: {', '.join(examples)}")
    return doubts


def _minus_ones(values: np.ndarray) -> np.ndarray:
    """Find -1 as a code: several times, the only negative number, among quantities.

    Numbers without decimals below 10 may be classes or charges.
    """
    negative, others = values[values < 0], values[values >= 0]
    are_quantities = bool((others % 1 != 0).any() or (others >= 10).any())
    is_code = len(negative) > 1 and bool((negative == -1).all()) and are_quantities
    return (values == -1) & is_code


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


def describe_warnings(pack: Pack) -> list[str]:
    """Name what a user should know before training on a pack: empty roles and medians."""
    rule = pack.identity.get("reading", {}).get("duplicates")
    kind = "means" if rule == "mean" else "medians"
    # Packs made before the attribute `combined` have none.
    medians = [
        f"{count:,} values of {name} are {kind} of rows of one formula that disagree"
        for name, count in pack.attrs.get("combined", {}).items()
    ]
    lacks = describe_empty_roles(pack.attrs["reported"])
    return [f"warning: {text}" for text in (*lacks, *medians)]


def describe_empty_roles(reported: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Name the properties that no train, val or test row reports, and what follows from it.

    Args:
        reported: property -> role -> number of rows.
    """
    other = "pack more rows, or use another --split-seed"
    effects = {
        "train": f"cannot be trained; {other}",
        "val": f"can be trained by --protocol paper only; {other}",
        "test": f"cannot be tested and therefore not trained; {other}",
    }
    return [
        f"no {role} row reports {name}, which {effects[role]}"
        for name, counts in reported.items()
        for role in ROLES
        if not counts[role]
    ]


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
    # Packs made before the attribute `notes` have none.
    lines += [f"{'note':<10}{note}" for note in attrs.get("notes", ())]
    return "\n".join([*lines, "", describe_rows(pack), *describe_warnings(pack)])


def pack_facts(pack: Pack) -> dict:
    """Describe a pack as a dict for --json: its counts, units, reported values and identity."""
    described: tuple[str, ...] = (
        "n_read",
        "rejected",
        "filtered",
        "licence",
        "citation",
        "created",
        "versions",
    )
    described += ("conflicts",) if "conflicts" in pack.attrs else ()
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
        "notes": pack.attrs.get("notes", []),
    }
