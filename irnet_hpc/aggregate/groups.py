"""Group comparable runs into tables, and name the settings that the runs of a table share.

The runs of a group share the pack, recipe, protocol, number of training rows and start (the run
from whose weights they started). Packs that differ only in the seed of their split count as one
pack, which is named without the seed: a run on another split is a repetition, just like a run with
another training seed.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.errors import UserError
from irnet_hpc.runs.classical_grids import GRIDS
from irnet_hpc.runs.collect import FinishedRun, one_a_property
from irnet_hpc.runs.pack_identity import differing_fields, without_content_hash
from irnet_hpc.runs.recipes import RECIPES, Recipe
from irnet_hpc.runs.spec import PROTOCOLS, read_recipe, run_id, run_key


class RecipeLabel(NamedTuple):
    """The name of a recipe in tables."""

    name: str
    content: str  # six digits of the recipe's hash if several recipes have this name, else empty
    stale: bool  # whether the recipe of this name, or the trainer, has since changed

    @property
    def text(self) -> str:
        """The name; if several recipes have it, also six digits of the hash, e.g. `mine#1a2b3c`."""
        return f"{self.name}#{self.content}" if self.content else self.name


class Start(NamedTuple):
    """The run from whose weights a training started, described in words.

    The description is the same for all seeds and splits of that run.
    """

    words: str
    has_seen_test: bool = False  # trained on formulas of the test rows, which lowers the MAE

    def __str__(self) -> str:
        return self.words + (" (which has seen test formulas)" if self.has_seen_test else "")


class Group(NamedTuple):
    """The runs of one table, and the settings that they share."""

    pack: str  # for several splits, the name that their packs share
    recipe: RecipeLabel
    protocol: str
    train_rows: int | None
    start: Start | None
    joint: str | None  # the properties that each network predicts together; None: one property
    runs: tuple[FinishedRun, ...]  # ordered by split and seed


class SplitFamily(NamedTuple):
    """Packs whose names differ only in the seed of the split."""

    name: str
    packs: tuple[str, ...]
    differing: tuple[str, ...]  # other fields of their identities that differ; empty: merge them


def group_runs(runs: Sequence[FinishedRun]) -> tuple[Group, ...]:
    """Sort runs into groups, one for each table. The groups are in the order of the tables.

    A run that predicts several properties is first divided into one run for each property.

    Raises:
        UserError: if two different packs have the same name, if runs of a table started from two
            different runs that have the same description, or if a cell has two different results.
            The message names two of the folders.
    """
    _refuse_two_packs_of_one_name(runs)
    recipes, packs, origins = _recipe_labels(runs), pack_labels(runs), _origins(runs)
    groups: dict[Group, list[FinishedRun]] = defaultdict(list)
    first: dict[tuple, FinishedRun] = {}
    starts: dict[tuple, FinishedRun] = {}
    single = [part for run in runs for part in one_a_property(run)]
    for run in sorted(single, key=lambda run: (run.repetition, run.folder)):
        spec, recipe, start = run.spec, recipes[run.folder], _start(run, origins)
        other = first.setdefault((spec, recipe, run.joint), run)
        unstarted = dataclasses.replace(spec, start_from=None)
        twin = starts.setdefault((unstarted, recipe, start, run.joint), run)
        if twin.spec.start_from != spec.start_from:
            raise UserError(
                f"{twin.folder} and {run.folder} started from different runs, both of which are "
                f"called {str(start)!r}; move one of them elsewhere"
            )
        if other is run:
            pack = packs[spec.pack]
            settings = recipe, spec.protocol, spec.train_rows, start, run.joint
            groups[Group(pack, *settings, runs=())].append(run)
        elif other.result != run.result:
            raise UserError(
                f"{other.folder} and {run.folder} hold the same cell with different numbers; "
                "keep one of them"
            )
    filled = [group._replace(runs=tuple(members)) for group, members in groups.items()]
    return tuple(sorted(filled, key=_group_order))


def counted_once(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Leave out repetitions of a model that gives the same result for every seed.

    Of the runs that differ only in the seed, the one with the lowest seed stays. A run with
    another MAE than it is no repetition and stays, too.
    """
    first: dict[tuple, FinishedRun] = {}
    for run in sorted(runs, key=lambda run: run.repetition):
        if not run.uses_seed:
            first.setdefault(_without_training_seed(run), run)
    return [
        run
        for run in runs
        if run.uses_seed
        or run.spec.seed == (other := first[_without_training_seed(run)]).spec.seed
        or not math.isclose(run.result.test_mae, other.result.test_mae, rel_tol=1e-6)
    ]


def _without_training_seed(run: FinishedRun) -> tuple:
    return dataclasses.replace(run.spec, seed=0), is_stale(run)


def _group_order(group: Group) -> tuple:
    recipe = group.recipe
    return (
        group.pack,
        PROTOCOLS.index(group.protocol),
        (recipe.text, recipe.stale),
        -(group.train_rows or math.inf),
        str(group.start or ""),
        group.joint or "",
    )


def _refuse_two_packs_of_one_name(runs: Iterable[FinishedRun]) -> None:
    first: dict[str, FinishedRun] = {}
    for run in runs:
        other = first.setdefault(run.spec.pack, run)
        if differing := differing_fields(run.result.pack_identity, other.result.pack_identity):
            raise UserError(
                f"{other.folder} and {run.folder} were trained on two packs named "
                f"{run.spec.pack!r} of different content ({', '.join(differing)}); rename one "
                "pack, or move one set of results elsewhere"
            )


def unseeded_identity(run: FinishedRun) -> dict:
    """Return the identity of a run's pack without the seed of its split."""
    split = {name: value for name, value in run.split_identity.items() if name != "seed"}
    return without_content_hash(run.result.pack_identity) | ({"split": split} if split else {})


def split_families(runs: Iterable[FinishedRun]) -> list[SplitFamily]:
    """Find packs whose names differ only in `-split<k>` or `-fold<k>`, k being the split's seed."""
    packs_of_name: dict[str, dict[str, FinishedRun]] = defaultdict(dict)
    for run in runs:
        pack = run.spec.pack
        packs_of_name[_without_seed(pack, run)].setdefault(pack, run)
    families = []
    for name, packs in sorted(packs_of_name.items()):
        if len(packs) < 2:
            continue
        identity, *others = (unseeded_identity(run) for run in packs.values())
        differing = {key for other in others for key in differing_fields(identity, other)}
        if len({run.split for run in packs.values()} - {None}) < len(packs):
            differing.add("split")  # a pack has no seed, or two packs have the same seed
        families.append(SplitFamily(name, tuple(sorted(packs)), tuple(sorted(differing))))
    return families


def _without_seed(pack: str, run: FinishedRun) -> str:
    """Remove the seed of a run's split, or its fold, from the name of its pack."""
    if run.folds:
        return re.sub(rf"-repeat{run.split}$", "", pack)
    if run.split_identity.get("by") in ("fold", "folds"):
        return re.sub(rf"-fold{run.split}(?=-|$)", "", pack, count=1)
    return re.sub(rf"-split{run.split}(?=-|$)", "", pack, count=1) if run.split else pack


def pack_labels(runs: Sequence[FinishedRun]) -> dict[str, str]:
    """Map each pack to its name in tables.

    Packs that differ only in the split's seed share a name.
    """
    labels = {run.spec.pack: run.spec.pack for run in runs}
    merged = [family for family in split_families(runs) if not family.differing]
    return labels | {pack: family.name for family in merged for pack in family.packs}


def is_stale(run: FinishedRun) -> bool:
    """Return True if what a run was trained by has changed since.

    That is its recipe, TRAINING_VERSION, or the rule that fits a recipe to few rows.
    """
    if run.folds:
        return any(map(is_stale, run.folds))
    spec, result = run.trained, run.result
    known = GRIDS[spec.architecture] if spec.is_classical else RECIPES.get(spec.recipe)
    try:
        recipe = read_recipe(spec, result.recipe)
        key = run_key(spec, recipe, result.pack_identity, (result.origin or {}).get("key"))
    except (TypeError, UserError):  # the run has a field that recipes no longer have
        return True
    return (known or recipe) != recipe or result.key != key or result.has_earlier_fit


def _training(run: FinishedRun) -> tuple[str, str, bool]:
    """Return the name and the content of a run's recipe, and True if it is stale.

    A table has one recipe. Each classical model has its own grid, but all classical models share a
    table, so their grids count as one recipe.
    """
    content = "" if run.spec.is_classical else content_hash(run.result.recipe)
    return run.spec.recipe, content, is_stale(run)


def content_hash(recipe: dict) -> str:
    """Return six hexadecimal digits by which recipes of the same name can be told apart."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:6]


def short_part(kind: str, text: str | None) -> str | None:
    """Return `text` for use in a file name. If it is long, return `kind` and a short hash of it."""
    return text if text is None or len(text) <= 80 else f"{kind}-{content_hash({kind: text})}"


def file_name(parts: Iterable[object]) -> str:
    """Join the parts that are not empty, and keep only letters, digits and _.+=-."""
    texts = [str(part) for part in parts if part]
    return "_".join(re.sub(r"[^A-Za-z0-9_.+=-]+", "-", text).strip("-") for text in texts)


def _recipe_labels(runs: Sequence[FinishedRun]) -> dict[Path, RecipeLabel]:
    """Map the folder of each run to the label of its recipe."""
    trainings = {run.folder: _training(run) for run in runs}
    contents = defaultdict(set)
    for name, content, _ in trainings.values():
        contents[name].add(content)
    return {
        folder: RecipeLabel(name, content if len(contents[name]) > 1 else "", stale)
        for folder, (name, content, stale) in trainings.items()
    }


def runs_with_changed_origin(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """List the runs whose origin has been trained again since, with another key.

    Only origins that are among `runs` can be checked.
    """
    origins = _origins(runs)
    return [
        run
        for run in runs
        if run.spec.start_from
        and (origin := origins.get(run.spec.start_from))
        and (run.result.origin or {}).get("key") != origin.result.key
    ]


def _origins(runs: Sequence[FinishedRun]) -> dict[str, FinishedRun]:
    """Map ids to runs; `start_from` refers to a run by its id.

    The result is empty if no run has an origin, since computing the ids takes time.
    """
    origins: dict[str, FinishedRun] = {}
    if not any(run.spec.start_from for run in runs):
        return origins
    for run in runs:
        # A run whose recipe has outdated fields has no id, so no run starts from it.
        with contextlib.suppress(UserError):
            recipe = read_recipe(run.spec, run.result.recipe)
            if isinstance(recipe, Recipe):  # no run starts from a classical model
                origins[run_id(run.spec, recipe)] = run
    return origins


# The fields that describe an origin; only those are named that differ from the run's fields.
ORIGIN = ("pack", "property", "model", "recipe")


def _start(run: FinishedRun, origins: dict[str, FinishedRun]) -> Start | None:
    """Describe the run from which a run started; None if it started from random weights.

    The description is the same whether or not the origin is among the results, since the result of
    each run states the facts about its origin.
    """
    spec, stated = run.trained, run.result.origin or {}
    if spec.start_from is None:
        return None
    named = (*ORIGIN, "protocol", "train_rows")
    if origin := origins.get(spec.start_from):
        fields = {name: getattr(origin.spec, name) for name in named}
    elif stated:
        fields = {name: stated.get(name) for name in named}
    else:
        return Start(f"run {spec.start_from[:8]}")
    # Imported here, since the module needs numpy and most tables do not.
    from irnet_hpc.data.splits import split_suffix_in

    own = {name: getattr(spec, name) for name in ORIGIN}
    # The packs of the origin and of the run have the same split, so its suffix is omitted.
    for side in (own, fields):
        side["pack"] = str(side["pack"]).removesuffix(split_suffix_in(spec.pack))
    words = [str(fields[name]) for name in ORIGIN if fields[name] not in (None, own[name])]
    # The protocol is always named, since starts are compared across protocols.
    words += ["paper"] if fields["protocol"] == "paper" else []
    words += [f"n{fields['train_rows']}"] if fields["train_rows"] else []
    return Start(" ".join(words) or "itself", bool(stated.get("n_shared_test")))
