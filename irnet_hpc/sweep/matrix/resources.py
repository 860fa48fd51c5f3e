"""Read the resources that cells request from the scheduler, on the first and on a second try."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from msgspec import Meta

from irnet_hpc.data.splits import split_suffix_in
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.runs.classical_grids import USES_GPU
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.runs.state_names import Cause
from irnet_hpc.sweep.matrix.fields import check_keys, check_value, check_values

MAX = 1_000_000
# The fields of RunSpec to which a resource shape may be narrowed with `for`.
NARROWING = (
    *("pack", "property", "model", "architecture", "depth"),
    *("recipe", "protocol", "seed", "train_rows"),
)
# Cause of a failure -> the resource of which the second try gets more.
FIELD_OF_CAUSE = {Cause.MEMORY: "memory_gb", Cause.TIME: "minutes"}


@dataclasses.dataclass(frozen=True)
class Resources:
    """The resources that the job of one cell requests from the scheduler."""

    nodes: Annotated[int, Meta(ge=1, le=MAX, description="nodes of a cell's job")] = 1
    ranks_per_node: Annotated[
        int, Meta(ge=1, le=MAX, description="ranks (processes that train) on each node")
    ] = 1
    cpus_per_rank: Annotated[int, Meta(ge=1, le=MAX, description="cores of each rank")] = 1
    gpus_per_rank: Annotated[
        int, Meta(ge=0, le=MAX, description="GPUs of each rank; without a GPU, its cells fail")
    ] = 0
    memory_gb: Annotated[
        float,
        Meta(
            ge=0.1,
            le=MAX,
            description="memory of each node, in GiB; where nothing is stated, workers that share "
            "a machine estimate it",
        ),
    ] = 8.0
    minutes: Annotated[int, Meta(ge=1, le=MAX, description="time limit of a cell")] = 60
    cpu_only: Annotated[
        bool, Meta(description="ask for no GPU, even if the site gives each rank one")
    ] = False
    stage_dir: Annotated[
        str,
        Meta(
            pattern=r"^(auto\Z|/|\Z)",
            description="where each node keeps its copy of the pack (`train --stage-dir`); "
            "empty: nowhere",
            extra={"rule": "auto or an absolute path"},
        ),
    ] = ""

    def __post_init__(self) -> None:
        check_values(self.__dict__, Resources)
        if self.cpu_only and self.gpus_per_rank:
            raise UserError(
                f"gpus_per_rank must be 0 where cpu_only is true, got {self.gpus_per_rank}"
            )

    @property
    def n_ranks(self) -> int:
        """The number of ranks over all nodes."""
        return self.nodes * self.ranks_per_node

    @property
    def device_hours(self) -> float:
        """The time limit times the number of devices. A device is what one rank computes on."""
        return self.n_ranks * self.minutes / 60


def gpus_per_rank(resources: Resources, site_gpus: int) -> int:
    """Return the GPUs of each rank, where the site gives `site_gpus` to jobs that ask for none."""
    return resources.gpus_per_rank or (0 if resources.cpu_only else site_gpus)


@dataclasses.dataclass(frozen=True)
class Retry:
    """The largest resources that a cell may request on its second try."""

    memory_gb: Annotated[
        float | None,
        Meta(
            description="the most memory, in GiB, that a second try may request if the first ran "
            "out of it; null: twice that of the first",
            extra={"rule": "a number from 0.1 to 1,000,000"},
        ),
    ] = None
    minutes: Annotated[
        int | None,
        Meta(
            description="the longest time limit that a second try may request if the first ran "
            "out of time; null: twice that of the first",
            extra={"rule": "a whole number from 1 to 1,000,000"},
        ),
    ] = None

    def __post_init__(self) -> None:
        Resources(**{name: value for name, value in self.__dict__.items() if value is not None})


class Shape(NamedTuple):
    """An entry of `resources`: the fields that it sets, and the cells that it applies to."""

    # Key of NARROWING -> values, as text, of the cells to which the entry applies; empty: all.
    narrow: dict[str, set[str]]
    fields: dict[str, Any]


def read_retry(value: object) -> Retry | None:
    """Read `retry`. Returns None if it is false: then no cell is tried again."""
    if value is False:
        return None
    check_value("retry", value, Annotated[dict, Meta(extra={"rule": "a mapping or false"})])
    assert isinstance(value, dict)
    check_keys("key of retry", value, Retry)
    return Retry(**value)


def with_more(resources: Resources, cause: Cause, limits: Retry) -> Resources | None:
    """Double the memory or the time of resources, within limits.

    Args:
        resources: The resources of the first try.
        cause: The resource that ran out: Cause.MEMORY or Cause.TIME.
        limits: The largest resources of the second try.

    Returns:
        The new resources; None if the limits allow no increase.
    """
    name = FIELD_OF_CAUSE[cause]
    before, limit = getattr(resources, name), getattr(limits, name)
    more = min(2 * before, MAX if limit is None else limit)
    return dataclasses.replace(resources, **{name: more}) if more > before else None


def mapping(value: object, name: str) -> dict:
    """Return a value that must be a mapping. Raises UserError if it is not one."""
    check_value(name, value, dict)
    assert isinstance(value, dict)
    return value


def read_resources(fields: object) -> Resources:
    """Read resources. Raises UserError, which lists the known keys, for an unknown key."""
    fields = mapping(fields, "resources")
    check_keys("key of resources", fields, Resources)
    return Resources(**fields)


def read_shapes(value: object) -> list[Shape]:
    """Read `resources`: one entry, or a list in which later entries override earlier ones."""
    shapes = []
    for entry in value if isinstance(value, list) else [value]:
        fields = dict(mapping(entry, "resources"))
        narrow = mapping(fields.pop("for", {}), "for of resources")
        for key in narrow:
            check_choice("key of for in resources", key, NARROWING)
        read_resources(fields)
        texts = {
            key: {str(value) for value in (values if isinstance(values, list) else [values])}
            for key, values in narrow.items()
        }
        shapes.append(Shape(texts, fields))
    return shapes


class ShapeTable:
    """The entries of `resources`, which find the resources of each cell."""

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self.shapes = shapes
        # Only the keys by which some shape is narrowed matter.
        self.keys = tuple(dict.fromkeys(key for shape in shapes for key in shape.narrow))
        # Values of `keys` -> the resources, and whether memory_gb is stated.
        self.known: dict[tuple, tuple[Resources, bool]] = {}
        self.used: set[int] = set()

    def resources_of(self, spec: RunSpec) -> Resources:
        """Return the resources of a cell; a classical model gets no GPU unless it uses one."""
        return self._look_up(spec)[0]

    def states_memory(self, spec: RunSpec) -> bool:
        """Return True if memory_gb of a cell is stated, and not the default."""
        return self._look_up(spec)[1]

    def _look_up(self, spec: RunSpec) -> tuple[Resources, bool]:
        no_gpu = spec.is_classical and spec.architecture not in USES_GPU
        values = (no_gpu, *(getattr(spec, key) for key in self.keys))
        if values not in self.known:
            fields: dict[str, Any] = {}
            for i, shape in enumerate(self.shapes):
                if fits(spec, shape.narrow):
                    self.used.add(i)
                    fields |= shape.fields
            if no_gpu:
                fields |= {"gpus_per_rank": 0, "cpu_only": True}
            self.known[values] = Resources(**fields), "memory_gb" in fields
        return self.known[values]

    def notes(self) -> list[str]:
        """Return a note on each entry that applies to no cell. Its `for` may contain a mistake."""
        unused = [shape.narrow for i, shape in enumerate(self.shapes) if i not in self.used]
        texts = [
            ", ".join(f"{key} {'/'.join(sorted(values))}" for key, values in narrow.items())
            for narrow in unused
            if narrow
        ]
        return [f"no cell matches the resources for {text}" for text in texts]


def fits(spec: RunSpec, narrow: Mapping[str, set[str]]) -> bool:
    """Return True if an entry's `for` applies to a cell."""
    # The name of a pack without its split stands for the pack in all its splits.
    known_as = {"pack": {spec.pack, spec.pack.removesuffix(split_suffix_in(spec.pack))}}
    if spec.train_rows is None:
        known_as["train_rows"] = {"all", "None"}
    return all(
        not values.isdisjoint(known_as.get(key, {str(getattr(spec, key))}))
        for key, values in narrow.items()
    )
