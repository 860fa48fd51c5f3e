"""Runs -> groups: which results may stand in one table, and the names of what they share.

A group has one pack, recipe, protocol, number of training rows and start. Packs that differ in nothing but the seed of
their split are one pack here, under the name without the seed: a split is a repetition, as a seed is.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from irnet_hpc.errors import UserError
from irnet_hpc.runs.collect import FinishedRun, one_a_property
from irnet_hpc.runs.grids import GRIDS
from irnet_hpc.runs.pack_identity import differing_fields, without_content_hash
from irnet_hpc.runs.recipes import RECIPES
from irnet_hpc.runs.spec import PROTOCOLS, read_recipe, run_id, run_key


class Group(NamedTuple):
    pack: str  # of several splits: the name that they share
    recipe: str  # with a hash where one name stands for several contents, and whether it is stale
    protocol: str
    train_rows: int | None
    start_from: str | None  # in words
    joint: str | None  # the properties that each network has together; None: one
    runs: tuple[FinishedRun, ...]  # by split and seed


class SplitFamily(NamedTuple):
    """Packs whose names say that they are splits of one."""

    name: str
    packs: tuple[str, ...]
    differing: tuple[str, ...]  # what else is not the same: then they are not merged


def group_runs(runs: Sequence[FinishedRun]) -> tuple[Group, ...]:
    """All groups, in the order of their tables. Raises UserError, naming two folders, where one name has two contents."""
    _refuse_two_packs_of_one_name(runs)
    recipes, packs = _recipe_labels(runs), pack_labels(runs)
    origins = _origins(runs)
    groups, first, starts = defaultdict(list), {}, {}
    alone = [one for run in runs for one in one_a_property(run)]
    for run in sorted(alone, key=lambda run: (run.repetition, run.folder)):
        spec, recipe = run.spec, recipes[_training(run)]
        other, start_from = first.setdefault((spec, recipe, run.joint), run), _origin(run, origins)
        twin = starts.setdefault(
            (dataclasses.replace(spec, start_from=None), recipe, start_from, run.joint), run
        )
        if twin.spec.start_from != spec.start_from:
            raise UserError(
                f"{twin.folder} and {run.folder} started from different runs, both of which are called {start_from!r}; "
                "move one of them elsewhere"
            )
        if other is run:
            groups[
                packs[spec.pack], recipe, spec.protocol, spec.train_rows, start_from, run.joint
            ].append(run)
        elif other.result != run.result:
            raise UserError(
                f"{other.folder} and {run.folder} hold the same cell with different numbers; keep one of them"
            )
    return tuple(Group(*names, tuple(groups[names])) for names in sorted(groups, key=_group_order))


def _group_order(names: tuple) -> tuple:
    pack, recipe, protocol, train_rows, start_from, joint = names
    return (
        pack,
        PROTOCOLS.index(protocol),
        recipe,
        -(train_rows or math.inf),
        start_from or "",
        joint or "",
    )


def _refuse_two_packs_of_one_name(runs: Sequence[FinishedRun]) -> None:
    first = {}
    for run in runs:
        other = first.setdefault(run.spec.pack, run)
        if differing := _differing(run, other):
            raise UserError(
                f"{other.folder} and {run.folder} were trained on two packs named {run.spec.pack!r} of different content "
                f"({', '.join(differing)}); rename one pack, or move one set of results elsewhere"
            )


def _differing(run: FinishedRun, other: FinishedRun) -> list[str]:
    """List the fields in which two runs' packs differ."""
    return differing_fields(run.result.pack_identity, other.result.pack_identity)


def unseeded_identity(run: FinishedRun) -> dict:
    """The pack's identity but for the seed of its split and the content that follows from it."""
    split = {name: value for name, value in run.split_identity.items() if name != "seed"}
    identity = without_content_hash(run.result.pack_identity)
    return identity | ({"split": split} if split else {})


def splits_of_one(runs: Iterable[FinishedRun]) -> list[SplitFamily]:
    """Packs of which two or more have one name but for `-split<k>`, k being the seed that their identity has."""
    families = defaultdict(dict)
    for run in runs:
        name = run.spec.pack
        families[_without_seed(name, run)].setdefault(name, run)
    found = []
    for shared, packs in sorted(families.items()):
        one, *rest = (unseeded_identity(run) for run in packs.values())
        differing = {
            key
            for other in rest
            for key in one.keys() | other.keys()
            if one.get(key) != other.get(key)
        }
        if len({run.split for run in packs.values()} - {None}) < len(packs):
            differing.add("split")  # one has no seed, or two have the same
        if rest:
            found.append(SplitFamily(shared, tuple(sorted(packs)), tuple(sorted(differing))))
    return found


def _without_seed(pack: str, run: FinishedRun) -> str:
    """The name of a pack that has the split seed of a run's, without it."""
    return re.sub(rf"-split{run.split}(?=-|$)", "", pack, count=1) if run.split else pack


def pack_labels(runs: Sequence[FinishedRun]) -> dict[str, str]:
    """Pack -> the name that it has in tables: of merged splits the one that they share, else its own."""
    labels = {run.spec.pack: run.spec.pack for run in runs}
    merged = [splits for splits in splits_of_one(runs) if not splits.differing]
    return labels | {pack: splits.name for splits in merged for pack in splits.packs}


def is_stale(run: FinishedRun) -> bool:
    """Whether the same specification would now be trained otherwise: another recipe of this name, or other numerics."""
    spec, result = run.trained, run.result
    known = GRIDS[spec.architecture] if spec.is_classical else RECIPES.get(spec.recipe)
    try:
        recipe = read_recipe(spec, result.recipe)
        origin_key = (result.origin or {}).get("key")
        return (known or recipe) != recipe or result.key != run_key(
            spec, recipe, result.pack_identity, origin_key
        )
    except (TypeError, UserError):  # a field that recipes no longer have
        return True


def _training(run: FinishedRun) -> tuple[str, str, bool]:
    """What runs of one table must have in common about their training: the recipe's name and content, stale or not. Each
    classical model has a grid of its own, and they share a table all the same."""
    content = "" if run.spec.is_classical else content_hash(run.result.recipe)
    return run.spec.recipe, content, is_stale(run)


def content_hash(recipe: dict) -> str:
    """What tells recipes of one name apart: six hexadecimal digits."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:6]


def short(what: str, text: str | None) -> str | None:
    """A part of a file's name, which has room for a few words: `what` and six digits for more."""
    return text if text is None or len(text) <= 80 else f"{what}-{content_hash({what: text})}"


def _recipe_labels(runs: Iterable[FinishedRun]) -> dict[tuple[str, str, bool], str]:
    """Training -> its label: the recipe's name, and where one name stands for several contents, a hash of each."""
    contents = defaultdict(set)
    trainings = {_training(run) for run in runs}
    for name, content, _ in trainings:
        contents[name].add(content)
    return {
        (name, content, stale): name
        + (f"#{content}" if len(contents[name]) > 1 else "")
        + (" (stale)" if stale else "")
        for name, content, stale in trainings
    }


def with_changed_origin(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Runs whose origin is among the results, but with other content than the one they started from."""
    origins = _origins(runs)
    return [
        run
        for run in runs
        if (origin := origins.get(run.spec.start_from))
        and (run.result.origin or {}).get("key") != origin.result.key
    ]


def _origins(runs: Iterable[FinishedRun]) -> dict[str, FinishedRun]:
    """What `start_from` of another run would call each run -> the run."""
    found = {}
    for run in runs:
        with contextlib.suppress(
            UserError
        ):  # of fields that recipes no longer have; no run starts from it by this id
            found[run_id(run.spec, read_recipe(run.spec, run.result.recipe))] = run
    return found


ORIGIN = (
    "pack",
    "property",
    "model",
    "recipe",
)  # what an origin is called by, where it is not the run's own
SEEN = " (which has seen test formulas)"


def _origin(run: FinishedRun, origins: dict[str, FinishedRun]) -> str | None:
    """Where the weights came from, in words that are the same for every seed and split; only what differs from the run
    itself. They are the same, too, whether or not the origin is among the results, since each says what it started from.
    A start that has seen formulas of the test rows says so: it flatters, and shares no table with one that has not."""
    spec = run.trained
    if spec.start_from is None:
        return None
    return _origin_called(run, origins) + (
        SEEN if (run.result.origin or {}).get("n_shared_test") else ""
    )


def _origin_called(run: FinishedRun, origins: dict[str, FinishedRun]) -> str:
    spec = run.trained
    named = (*ORIGIN, "protocol", "train_rows")
    if origin := origins.get(spec.start_from):
        theirs = {name: getattr(origin.spec, name) for name in named}
    elif run.result.origin:
        theirs = {name: run.result.origin.get(name) for name in named}
    else:
        return f"run {spec.start_from[:8]}"
    from irnet_hpc.data.splits import split_suffix_in

    ours = {name: getattr(spec, name) for name in ORIGIN}
    for side in (
        ours,
        theirs,
    ):  # an origin's pack is split as that of what starts from it, or its name would say more
        side["pack"] = str(side["pack"]).removesuffix(split_suffix_in(spec.pack))
    words = [str(theirs[name]) for name in ORIGIN if theirs[name] not in (None, ours[name])]
    words += (
        ["paper"] if theirs["protocol"] == "paper" else []
    )  # whatever the run's: they are compared over protocols
    words += [f"n{theirs['train_rows']}"] if theirs["train_rows"] else []
    return " ".join(words) or "itself"
