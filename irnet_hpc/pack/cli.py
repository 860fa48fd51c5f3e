"""Pack a source: raw table -> materials -> features -> splits -> packs/<name>.h5, which training reads.

python -m irnet_hpc.pack --source alloys                              needs no download; 20,000 alloys
python -m irnet_hpc.pack --list                                       what can be packed, and what is here
python -m irnet_hpc.pack --source oqmd --features magpie+elements     data/oqmd.csv.xz, downloaded where it is missing
python -m irnet_hpc.pack --source mine.csv --property hardness --unit hardness=GPa --features columns
mpirun -n 8 python -m irnet_hpc.pack --source oqmd                     over the ranks of MPI; slurm/pack.sh: over nodes
python -m irnet_hpc.pack --source oqmd --split element:O              test is every material with oxygen; family:halogens
python -m irnet_hpc.pack --info alloys-magpie                         what is in a pack
python -m irnet_hpc.pack --verify alloys-magpie                       read all of it and compare its hash
python -m irnet_hpc.pack --probe oqmd                                 whether the service is as its reader expects it

What was killed goes on where it was when the same command is typed again.
"""

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from irnet_hpc.console import CommandParser, command_parser, json_answer
from irnet_hpc.data import catalogue
from irnet_hpc.data.download.obtain import ensure
from irnet_hpc.data.download.probe import probe_source
from irnet_hpc.data.elements import FAMILIES
from irnet_hpc.data.loading import DEFAULT_ROWS, Loaded, load_source
from irnet_hpc.data.resolve import ResolvedSource, resolve_source
from irnet_hpc.data.sources import SOURCES, Filter
from irnet_hpc.data.splits import (
    RANDOM,
    SplitRule,
    count_on_two_sides,
    parse_split_rule,
    split_identity,
    split_suffix,
)
from irnet_hpc.distributed.mpi import Ranks, run
from irnet_hpc.errors import UserError
from irnet_hpc.features import sets as features
from irnet_hpc.features.sets import FEATURE_SETS
from irnet_hpc.files import NAME, json_text
from irnet_hpc.pack import blocks as parts
from irnet_hpc.pack import build as packing
from irnet_hpc.pack import store
from irnet_hpc.pack.select import RULES, select, split_and_order
from irnet_hpc.pack.summary import account, describe, facts, introduce
from irnet_hpc.runs.recipes import RECIPES, fitting_batch


def main() -> int | None:
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that a cancelled job takes its temporary file away
    arguments = parser().parse_args()
    if arguments.json and not (arguments.info or arguments.source):
        raise UserError("--json is of --source and of --info")
    if arguments.verify:
        path = store.pack_path(arguments.verify, arguments.pack_dir)
        print(f"{path} is sound: {store.verify(path)}")
    elif arguments.info:
        with store.open_pack(store.pack_path(arguments.info, arguments.pack_dir)) as found:
            step = next_step(found, arguments.info, arguments.pack_dir)
            print(
                json_text(facts(found)).rstrip()
                if arguments.json
                else f"{describe(found)}\nnext: {step}"
            )
    elif arguments.list is not None:
        print(catalogue.listing(arguments.list, arguments.data_dir))
    elif arguments.probe:
        differences = probe_source(arguments.probe, arguments.url)
        print("\n".join(differences) or f"{arguments.probe} is as its reader expects it")
        return 1 if differences else 0
    else:
        with json_answer(arguments.json) as answer:
            return run(lambda ranks: pack_on(ranks, arguments, answer))
    return None


def pack_on(ranks: Ranks, arguments: argparse.Namespace, answer: Callable[[object], None]) -> None:
    """Make one pack with all ranks, of which rank 0 has the word."""
    if ranks.rank:
        packing.assist(ranks)
        return
    split = parse_split_rule(arguments.split, arguments.split_seed)
    source = resolve_source(arguments.source, arguments.data_dir)
    path = store.pack_path(name_for(arguments, source, split), arguments.pack_dir)
    with parts.alone(path):
        pack(arguments, source, split, path, ranks)
    packing.dismiss(ranks)
    with store.open_pack(path) as made:
        step = next_step(made, made.name, arguments.pack_dir)
        say(f"next: {step}")
        answer(facts(made) | {"next": step})


def next_step(made: store.Pack, name: str, pack_dir: str | None) -> str:
    """What a pack is for, in a command; with few rows for the default recipe's batches, in one with smaller ones."""
    property_ = next(iter(made.units))
    options = ["--pack", name, "--property", property_, "--architecture", "irnet", "--depth", "17"]
    default, batch = RECIPES["onecycle"], fitting_batch(made.attrs["reported"][property_]["train"])
    if batch < default.batch:
        group = min(default.norm_group, batch)
        options += [
            "--recipe",
            f"{{name: small, base: onecycle, batch: {batch}, norm_group: {group}}}",
        ]
    options += ["--pack-dir", pack_dir] if pack_dir else []
    return shlex.join(["python", "-m", "irnet_hpc.train", *options])


def pack(
    arguments: argparse.Namespace,
    source: ResolvedSource,
    split: SplitRule,
    path: Path,
    ranks: Ranks,
) -> None:
    """Make one pack, saying each step."""
    began = time.monotonic()
    names = features.parse_feature_sets(arguments.features)
    features.check_installed(names)
    for caution in features.experimental_notes(names):
        say(caution)
    structures = features.need_structures(names)
    ensure(source, arguments.url, structures)
    say(f"reading {source.text}")
    loaded = load_source(
        source,
        n_rows=arguments.rows,
        properties=arguments.property,
        units=stated_units(arguments.unit),
        columns="columns" in names,
        structures=structures,
    )
    if loaded.table.role and split != RANDOM:
        option = "--split-seed" if split.by == RANDOM.by else "--split"
        raise UserError(
            f"the table has a column split, which is honoured as it stands; drop it, or {option}"
        )
    filters = (
        []
        if arguments.no_filters
        else [rule for rule in loaded.source.filters if rule.property in loaded.units]
    )
    identity = identify(loaded, names, filters, split)
    if path.exists() and not arguments.overwrite and already_done(path, identity):
        parts.remove(path)  # of a process that was killed when all was done but this
        return
    say(introduce(loaded, columns="columns" in names))
    materials, rejected, filtered = select(loaded.table, names, loaded.source, filters)
    materials = split_and_order(materials, split)
    if n_both := count_on_two_sides(materials.reduced, materials.role):
        say(f"warning: {n_both:,} formulas are on more than one side of the table's own split")
    attrs = {
        "n_read": len(loaded.table),
        "filtered": filtered,
        "licence": loaded.source.licence,
        "citation": loaded.source.citation,
    }
    packing.write(path, materials, rejected, identity, attrs, arguments.workers, ranks)
    with store.open_pack(path) as made:
        say(account(made))
        say(
            f"wrote {path}, {path.stat().st_size / 2**20:,.1f} MiB, in {time.monotonic() - began:.1f} s"
        )
        if made.attrs["n_rejected"]:
            say(f"the rejected rows are in {parts.rejected_path(path)}")


def name_for(arguments: argparse.Namespace, source: ResolvedSource, split: SplitRule) -> str:
    """The pack's name: --name, else source and features with whatever is not default appended."""
    for option in ("rows", "workers"):
        if getattr(arguments, option) is not None and getattr(arguments, option) < 1:
            raise UserError(f"--{option} must be at least 1, however: {getattr(arguments, option)}")
    if arguments.split_seed < 0:
        raise UserError(f"--split-seed must not be negative, however: {arguments.split_seed}")
    name = arguments.name
    if name is None:
        name = f"{source.name}-{arguments.features}"
        name += f"-{'+'.join(arguments.property)}" if arguments.property else ""
        default = DEFAULT_ROWS if source.is_computed else None
        name += f"-n{arguments.rows}" if arguments.rows not in (None, default) else ""
        name += split_suffix(split)
        name += "-nofilters" if arguments.no_filters else ""
    if not NAME.fullmatch(name) or name.endswith(".h5"):
        raise UserError(
            f"a pack's name must be letters, digits and _.+=- and no ending, however: {name!r}; see --name"
        )
    return name


def stated_units(pairs: list[str]) -> dict[str, str]:
    """`NAME=UNIT` pairs as a dictionary."""
    for pair in pairs:
        name, _, unit = pair.rpartition("=")
        if not name or not unit:
            raise UserError(f"--unit must be NAME=UNIT, however: {pair!r}")
    return dict(pair.rsplit("=", 1) for pair in pairs)


def identify(
    loaded: Loaded, names: tuple[str, ...], filters: list[Filter], split: SplitRule
) -> dict:
    """What decides the content of a pack, known before any work."""
    return {
        "source": loaded.identity,
        "source_sha256": loaded.table.sha256,
        "rules": RULES,
        "n_source_rows": len(loaded.table),
        "properties": loaded.units,
        "features": "+".join(names),
        "feature_versions": {name: FEATURE_SETS[name].version for name in names},
        "filters": [str(rule) for rule in filters],
        "split": {"by": "column"} if loaded.table.role else split_identity(split),
    }


def already_done(path: Path, identity: dict) -> bool:
    """Whether the pack is there. Raises UserError where another one has its name."""
    try:
        with store.open_pack(path) as found:
            differing = [name for name, value in identity.items() if found.identity[name] != value]
    except UserError as error:
        raise UserError(f"{error}; --overwrite replaces it") from None
    if differing:
        raise UserError(
            f"{path} is another pack (its {', '.join(differing)} differ); use --overwrite, or another --name"
        )
    say(f"already packed: {path}")
    return True


def say(text: str) -> None:
    print(text, flush=True)


def parser() -> CommandParser:
    parser = command_parser("pack", __doc__)
    add = parser.add_argument
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument(
        "--source",
        help=f"{', '.join(SOURCES)}, matminer:NAME, or a path to a .csv or .jsonl, also .gz or .xz",
    )
    task.add_argument(
        "--info", metavar="PACK", help="print what is in a pack, given by name or path"
    )
    task.add_argument("--verify", metavar="PACK", help="read all of a pack and compare its hash")
    task.add_argument(
        "--list",
        nargs="?",
        const="",
        metavar="matminer",
        help="list the sources, or matminer's datasets",
    )
    task.add_argument(
        "--probe",
        metavar="SOURCE",
        help="fetch one page of a source and print what differs; status 1",
    )
    add(
        "--json",
        action="store_true",
        help="of --source and --info: one object at the end, for a program to read",
    )
    add("--url", help="another address for a source's service, such as a mirror's")
    sets = ", ".join(
        name + " (experimental)" * bool(kind.experimental) for name, kind in FEATURE_SETS.items()
    )
    add("--features", default="magpie", help=f"{sets}, or a sum with + (default: %(default)s)")
    add("--data-dir", help="where raw tables are (default: $IRNET_DATA, else data/)")
    add("--pack-dir", help="where packs are (default: $IRNET_PACKS, else packs/)")
    add("--name", help="the pack's name (default: source and features)")
    add(
        "--rows",
        type=int,
        help="a fixed random sample of so many rows; alloys: how many are made (default: 20,000)",
    )
    add(
        "--split",
        default=str(RANDOM),
        help="what is test: random (default), or every material that contains an element, element:O or element:F+Cl, or one "
        f"of a family of them, family:NAME with {', '.join(FAMILIES)}",
    )
    add(
        "--split-seed",
        type=int,
        default=0,
        help="another division into train, val and test (default: %(default)s)",
    )
    add("--workers", type=int, help="processes, of each rank (default: as many as finish first)")
    add(
        "--property",
        action="append",
        default=[],
        metavar="P",
        help="pack this property only; may be repeated",
    )
    add(
        "--unit",
        action="append",
        default=[],
        metavar="P=UNIT",
        help="unit of a property outside the table of properties",
    )
    add(
        "--no-filters", action="store_true", help="keep values that the source's filters would drop"
    )
    add("--overwrite", action="store_true", help="replace a pack of that name")
    return parser
