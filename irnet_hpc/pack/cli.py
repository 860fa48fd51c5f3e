"""Turn a table of materials into a pack: features, targets and splits in one HDF5 file.

python -m irnet_hpc.pack --source alloys                 needs no download; 20,000 alloys
python -m irnet_hpc.pack --list                          the sources, and which are downloaded
python -m irnet_hpc.pack --source oqmd --features magpie+elements    downloads what is missing
python -m irnet_hpc.pack --source crabnet:OQMD_Bandgap   a benchmark, with its published parts
python -m irnet_hpc.pack --source matbench:expt_gap --fold 0
python -m irnet_hpc.pack --source optimade:oqmd --filter 'elements HAS "Si"'
python -m irnet_hpc.pack --list optimade:oqmd            the properties that a provider has
python -m irnet_hpc.pack --source mine.csv --folds 5     a pack for each of five folds
python -m irnet_hpc.pack --source mine.csv --property hardness --unit hardness=GPa
python -m irnet_hpc.pack --source cifs/ --features structure --properties-table gaps.csv
python -m irnet_hpc.pack --check mine.xlsx               what would be read, merged and left out
python -m irnet_hpc.pack --source mine.csv --rename "Eg (PBE)=band_gap" --missing na,-9999
mpirun -n 8 python -m irnet_hpc.pack --source oqmd       on MPI ranks; slurm/pack.sh: on nodes
python -m irnet_hpc.pack --source oqmd --split element:O all oxygen compounds are test
python -m irnet_hpc.pack --info alloys-magpie            the contents of a pack
python -m irnet_hpc.pack --verify alloys-magpie          read the whole pack and check its hash
python -m irnet_hpc.pack --probe oqmd                    check that a service answers as expected

If packing was interrupted, the same command resumes it.
"""

import argparse
import contextlib
import dataclasses
import logging
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

from irnet_hpc.console import CommandParser, command_parser, json_answer
from irnet_hpc.data.download.optimade.query import with_filter
from irnet_hpc.data.duplicates import DUPLICATES
from irnet_hpc.data.elements import FAMILIES
from irnet_hpc.data.numerals import parse_number
from irnet_hpc.data.sources import SOURCES
from irnet_hpc.data.splits import (
    MAX_FOLDS,
    RANDOM,
    check_fold_count,
    fold_rules,
    name_of_folds,
    split_suffix,
)
from irnet_hpc.distributed.mpi import Ranks, run
from irnet_hpc.distributed.processes import handlers_restored
from irnet_hpc.errors import UserError, check_whole
from irnet_hpc.features.sets import FEATURE_SETS
from irnet_hpc.files import json_text
from irnet_hpc.pack import store
from irnet_hpc.pack.options import add_reading_options, once_each, reading_of
from irnet_hpc.pack.pipeline import PackOptions, SameRows, pack_source
from irnet_hpc.pack.summary import describe_pack, pack_facts
from irnet_hpc.runs.recipes import MIN_ROWS, RECIPES, fitting_batch


@handlers_restored
def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the command; return its exit status."""
    # SLURM cancels a job by SIGTERM. Make it an exception, so that temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments = parser().parse_args(argv)
    if arguments.filter is not None:
        if arguments.source is None:
            raise UserError("--filter can be used only with --source optimade:URL")
        arguments.source = with_filter(arguments.source, arguments.filter)
    if arguments.json and not (arguments.info or arguments.source):
        raise UserError("--json can be used only with --source or --info")
    if arguments.verify:
        path = store.pack_path(arguments.verify, arguments.pack_dir)
        print(f"{path} is sound: {store.verify(path)}")
    elif arguments.info:
        _print_info(arguments)
    elif arguments.check:
        _check(arguments, list(sys.argv[1:] if argv is None else argv))
    elif arguments.list is not None:
        from irnet_hpc.data.catalogue import list_sources

        print(list_sources(arguments.list, arguments.data_dir))
    elif arguments.probe:
        from irnet_hpc.data.download.probe import probe_source

        differences = probe_source(arguments.probe, arguments.url)
        print("\n".join(differences) or f"{arguments.probe} answers as expected")
        return 1 if differences else 0
    else:
        with json_answer(arguments.json) as answer:
            return run(lambda ranks: _pack(ranks, arguments, answer))
    return None


def _print_info(arguments: argparse.Namespace) -> None:
    with store.load_pack(arguments.info, arguments.pack_dir) as pack:
        if arguments.json:
            print(json_text(pack_facts(pack)), end="")
        else:
            step = next_step(pack, arguments.info, arguments.pack_dir)
            print(f"{describe_pack(pack)}\nnext: {step}")


def _check(arguments: argparse.Namespace, command: list[str]) -> None:
    """Print what would come of a table, and the command that packs it."""
    from irnet_hpc.pack.check import check_source

    arguments.source = arguments.check
    options = pack_options(arguments)
    if arguments.folds is not None:
        first = fold_rules(check_fold_count(arguments.folds), 1)[0]
        options = dataclasses.replace(options, split=str(first), split_seed=first.seed)
    print("\n".join(check_source(options)))
    packing = [
        word.replace("--check", "--source", 1) if _is_check(word) else word for word in command
    ]
    print(f"next: {shlex.join(['python', '-m', 'irnet_hpc.pack', *packing])}")


def _is_check(word: str) -> bool:
    return word == "--check" or word.startswith("--check=")


def _pack(ranks: Ranks, arguments: argparse.Namespace, answer: Callable[[object], None]) -> None:
    if arguments.folds is not None:
        _pack_folds(ranks, arguments, answer)
        return
    if arguments.repeats is not None:
        raise UserError("--repeats needs --folds, e.g. --folds 5")
    path = pack_source(pack_options(arguments), ranks)
    if path is None:
        return
    with store.open_pack(path) as pack:
        step = next_step(pack, pack.name, arguments.pack_dir)
        if why := few_rows(pack.n_rows, arguments):
            print(why)
        print(f"next: {step}", flush=True)
        answer(pack_facts(pack) | {"next": step})


# Of fewer rows, a tenth is too few to judge a model by.
FEW_ROWS = 500


def few_rows(n_rows: int, arguments: argparse.Namespace) -> str:
    """Advise folds for a table whose rows a single random split has; empty if it needs none."""
    if n_rows >= FEW_ROWS or arguments.split != str(RANDOM) or arguments.fold is not None:
        return ""
    return (
        f"{n_rows:,} rows are few for a single split, whose test errors are chance: with --folds 5 "
        "each row is a test row once"
    )


def pack_options(arguments: argparse.Namespace) -> PackOptions:
    """Convert the parsed command line into PackOptions."""
    return PackOptions(
        source=arguments.source,
        features=arguments.features,
        name=arguments.name,
        properties=tuple(arguments.property),
        units=_units(arguments.unit),
        rows=arguments.rows,
        split=arguments.split,
        split_seed=arguments.split_seed,
        filters=not arguments.no_filters,
        limits=_limits(arguments.limit),
        data_dir=arguments.data_dir,
        pack_dir=arguments.pack_dir,
        url=arguments.url,
        live=arguments.live,
        wheels=tuple(arguments.wheel),
        fold=arguments.fold,
        workers=arguments.workers,
        overwrite=arguments.overwrite,
        reading=dataclasses.replace(
            reading_of(arguments),
            drop=tuple(arguments.drop),
            strict=arguments.strict,
            properties_table=arguments.properties_table or "",
        ),
        duplicates=arguments.duplicates,
    )


def _pack_folds(
    ranks: Ranks, arguments: argparse.Namespace, answer: Callable[[object], None]
) -> None:
    """Make a pack for each fold of each repeat."""
    if arguments.fold is not None or arguments.split != str(RANDOM) or arguments.split_seed:
        raise UserError("--folds takes no --fold, --split and --split-seed, since it is a split")
    n_repeats = check_whole("--repeats", 1 if arguments.repeats is None else arguments.repeats)
    if n_repeats < 1:
        raise UserError(f"--repeats must be at least 1, got {n_repeats}")
    options, same, facts, step = pack_options(arguments), SameRows(), [], ""
    for rule in fold_rules(check_fold_count(arguments.folds), n_repeats):
        name = options.name and options.name + split_suffix(rule)
        fold = dataclasses.replace(options, split=str(rule), split_seed=rule.seed, name=name)
        with _fewer_lines() if rule.seed else contextlib.nullcontext():
            path = pack_source(fold, ranks, same)
        if path is not None:
            with store.open_pack(path) as pack:
                facts.append(pack_facts(pack))
                step = step or next_step(pack, name_of_folds(pack.name), arguments.pack_dir)
                counts = f"{pack.n_train:,} train, {pack.n_val:,} val, {pack.n_test:,} test rows"
                print(f"fold {rule.seed}: {counts}: {path}", flush=True)
    if facts:
        print(f"next: {step}", flush=True)
        answer({"folds": facts, "next": step})


@contextlib.contextmanager
def _fewer_lines() -> Iterator[None]:
    """Log warnings only: the folds after the first one read the same rows."""
    logger = logging.getLogger("irnet_hpc")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def next_step(pack: store.Pack, name: str, pack_dir: str | None) -> str:
    """Suggest a command for a pack: `train` with a property that it can train, else `--info`.

    If the training rows fill few batches of the default recipe, the command states a smaller batch.
    Fewer rows than one batch need no such recipe, since the default one is fitted to them.
    """
    reported = pack.attrs["reported"]
    trainable = [p for p in pack.units if reported[p]["train"] and reported[p]["test"]]
    # The first property with val rows, else the first one.
    target = next(iter(sorted(trainable, key=lambda p: not reported[p]["val"])), None)
    if target is None:
        options = ["--info", name] + (["--pack-dir", pack_dir] if pack_dir else [])
        return shlex.join(["python", "-m", "irnet_hpc.pack", *options])
    n_rows, n_train = sum(reported[target].values()), reported[target]["train"]
    is_tiny = n_rows < MIN_ROWS  # a network would have to state its batch
    options = ["--pack", name, "--property", target, "--architecture"]
    options += ["extra_trees"] if is_tiny else ["irnet", "--depth", "17"]
    options += [] if reported[target]["val"] else ["--protocol", "paper"]
    default = RECIPES["onecycle"]
    batch = fitting_batch(reported[target]["train"])
    if batch < default.batch <= n_train:
        group = min(default.norm_group, batch)
        recipe = f"{{name: small, base: onecycle, batch: {batch}, norm_group: {group}}}"
        options += ["--recipe", recipe]
    options += ["--pack-dir", pack_dir] if pack_dir else []
    return shlex.join(["python", "-m", "irnet_hpc.train", *options])


def _units(pairs: list[str]) -> dict[str, str]:
    """Read `NAME=UNIT` pairs."""
    units = []
    for pair in pairs:
        name, _, unit = pair.rpartition("=")
        if not name or not unit:
            raise UserError(f"--unit must be NAME=UNIT, got {pair!r}")
        units.append((name, unit))
    return once_each("--unit", units)


def _limits(texts: list[str]) -> dict[str, tuple[float, float]]:
    """Read `NAME=LOW:HIGH`; either number may be left out."""
    limits = []
    for text in texts:
        name, _, span = text.rpartition("=")
        low, colon, high = span.partition(":")
        try:
            bounds = _bound(low or "-inf"), _bound(high or "inf")
            is_limit = bool(name and colon and (low or high))
        except ValueError:
            is_limit = False
        if not is_limit:
            raise UserError(
                f"--limit must be NAME=LOW:HIGH, where one number may be left out, got {text!r}"
            )
        limits.append((name, bounds))
    return once_each("--limit", limits)


def _bound(text: str) -> float:
    """Read a number as tables have it, `inf` or `-inf`. Raises ValueError for other text."""
    return float(text) if text in ("-inf", "inf") else parse_number(text)


def parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = command_parser("pack", __doc__)
    _add_tasks(parser.add_mutually_exclusive_group(required=True))
    add = parser.add_argument
    add(
        "--json",
        action="store_true",
        help="print one JSON object at the end (only with --source or --info)",
    )
    add("--url", help="another address for the source's service, such as that of a mirror")
    add(
        "--filter",
        metavar="FILTER",
        help="a filter of OPTIMADE, sent as it is, such as 'elements HAS \"Si\"' (optimade:)",
    )
    add(
        "--live",
        action="store_true",
        help="ask the source's own service, for hours, though a wheel has a table of it (oqmd)",
    )
    add(
        "--wheel",
        action="append",
        default=[],
        metavar="FILE",
        help="a wheel that has the source's table, fetched elsewhere (oqmd, crabnet:, matbench:)",
    )
    add(
        "--fold",
        type=int,
        metavar="K",
        help="the official fold whose rows are test, 0 to 4 (matbench:)",
    )
    add(
        "--folds",
        type=int,
        metavar="N",
        help=f"deal the formulas to N folds, 2 to {MAX_FOLDS}, and make a pack for each fold, in "
        "which its rows are test; `train --pack NAME-foldsN` trains on all of them",
    )
    add(
        "--repeats",
        type=int,
        metavar="R",
        help="deal the formulas R times, which makes N folds each time (default: 1)",
    )
    names = ", ".join(
        name + " (experimental)" * bool(feature_set.experimental)
        for name, feature_set in FEATURE_SETS.items()
    )
    add(
        "--features",
        default="magpie",
        help=f"{names}, or several joined by + (default: %(default)s)",
    )
    add("--data-dir", help="folder of raw tables (default: $IRNET_DATA, else data/)")
    add("--pack-dir", help="folder of packs (default: $IRNET_PACKS, else packs/)")
    add("--name", help="name of the pack (default: made from source and features)")
    add(
        "--rows",
        type=int,
        help="pack a fixed random sample of ROWS rows; for alloys: make ROWS (default: 20,000)",
    )
    add(
        "--split",
        default=str(RANDOM),
        help="which rows are test: random (default); element:O or element:F+Cl: all materials with "
        f"one of these elements; family:NAME: the same for a family, {', '.join(FAMILIES)}; or "
        "folds:5: the fold of five that --split-seed names, from 0 on",
    )
    add(
        "--split-seed",
        type=int,
        default=0,
        help="seed of the split into train, val and test (default: %(default)s)",
    )
    add(
        "--workers",
        type=int,
        help="worker processes per rank (default: the number that is fastest)",
    )
    add(
        "--property",
        action="append",
        default=[],
        metavar="P",
        help="pack only this property; may be given several times",
    )
    add(
        "--unit",
        action="append",
        default=[],
        metavar="P=UNIT",
        help="unit of a property that the package does not know",
    )
    add(
        "--no-filters",
        action="store_true",
        help="keep the values that hard limits and the source's filters would remove",
    )
    add(
        "--limit",
        action="append",
        default=[],
        metavar="P=LOW:HIGH",
        help="remove values of a property outside these limits, in its unit; negative moduli, "
        "for example, by `--limit bulk_modulus=0:`; may be given once for each property",
    )
    add("--overwrite", action="store_true", help="replace an existing pack of the same name")
    _add_reading(parser)
    return parser


def _add_reading(parser: CommandParser) -> None:
    add_reading_options(parser)
    add = parser.add_argument
    add(
        "--drop",
        action="append",
        default=[],
        metavar="COLUMN",
        help="do not read this column; may be given several times",
    )
    add(
        "--properties-table",
        metavar="FILE",
        help="the properties of structures: a table whose rows name their files or ids (default: "
        "the only table in the folder)",
    )
    add(
        "--strict",
        action="store_true",
        help="stop at a cell or a file that cannot be read; else it is left out and listed",
    )
    add(
        "--duplicates",
        choices=DUPLICATES,
        help="which value stands for several rows of one formula (default: lowest-energy for named "
        "sources and tables with material_id or energies, else median)",
    )


def _add_tasks(task: "argparse._MutuallyExclusiveGroup") -> None:
    task.add_argument(
        "--source",
        help=f"{', '.join(SOURCES)}, matminer:NAME, crabnet:NAME, matbench:TASK, optimade:URL or "
        "optimade:PROVIDER, or a path to a .csv, .tsv, .jsonl (also .gz, .xz), .xlsx, .parquet, "
        ".feather or .json, or to a folder or archive of structures (.cif, POSCAR, .xyz, .json)",
    )
    task.add_argument(
        "--check",
        metavar="TABLE",
        help="say what packing a table would read, convert, merge and leave out; write nothing",
    )
    task.add_argument("--info", metavar="PACK", help="print the contents of a pack (name or path)")
    task.add_argument("--verify", metavar="PACK", help="read a whole pack and check its hash")
    task.add_argument(
        "--list",
        nargs="?",
        const="",
        metavar="matminer|optimade:URL",
        help="list the sources, matminer's datasets, or the properties of a service",
    )
    task.add_argument(
        "--probe",
        metavar="SOURCE",
        help="fetch one page of a source; if it differs from what is expected, say how (status 1)",
    )
