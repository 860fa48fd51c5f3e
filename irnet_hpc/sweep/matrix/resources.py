"""Resource shapes: what a cell asks of the scheduler, how a matrix says it for all cells or for some, and how much more a
cell may ask for that has run out of it."""

import dataclasses

from irnet_hpc.data.splits import split_suffix_in
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.runs.grids import USES_GPU
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.sweep.matrix.yaml_file import mapping

# what a resource shape may be narrowed to with `for`: fields of RunSpec
NARROWING = (
    "pack",
    "property",
    "model",
    "architecture",
    "depth",
    "recipe",
    "protocol",
    "seed",
    "train_rows",
)


@dataclasses.dataclass(frozen=True)
class Resources:
    """What one cell asks of the scheduler."""

    nodes: int = 1
    ranks_per_node: int = 1
    cpus_per_rank: int = 1
    gpus_per_rank: int = 0
    memory_gb: float = 8.0  # of each node
    minutes: int = 60
    cpu_only: bool = False  # ask for no GPU, whatever the site gives a rank unasked
    stage_dir: str = ""  # where each node keeps its copy of the pack, as `train --stage-dir` takes it; "": nowhere

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is bool:
                if not isinstance(value, bool):
                    raise UserError(f"{field.name} must be true or false, however: {value!r}")
                continue
            if field.type is str:
                if not isinstance(value, str) or (
                    value not in ("", "auto") and not value.startswith("/")
                ):
                    raise UserError(
                        f"{field.name} must be auto or an absolute path, however: {value!r}"
                    )
                continue
            kinds, lowest = (int, 1) if field.type is int else (int | float, 0.1)
            lowest = 0 if field.name == "gpus_per_rank" else lowest
            if (
                isinstance(value, bool)
                or not isinstance(value, kinds)
                or not lowest <= value <= 1_000_000
            ):
                whole = "a whole" if kinds is int else "a"
                raise UserError(
                    f"{field.name} must be {whole} number from {lowest} to 1,000,000, however: {value!r}"
                )
        if self.cpu_only and self.gpus_per_rank:
            raise UserError(
                f"gpus_per_rank must be 0 where cpu_only is true, however: {self.gpus_per_rank}"
            )

    @property
    def n_ranks(self) -> int:
        return self.nodes * self.ranks_per_node

    @property
    def device_hours(self) -> float:
        """The most it may use. A device is what one rank computes on: its GPUs, or its cores."""
        return self.n_ranks * self.minutes / 60


@dataclasses.dataclass(frozen=True)
class Retry:
    """The most that a cell may ask for when it is tried once more; None: twice what it had."""

    memory_gb: float | None = None
    minutes: int | None = None

    def __post_init__(self) -> None:
        Resources(
            **{name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        )


def read_retry(value: object) -> Retry | None:
    """Retry from YAML; None where it says false: nothing is tried again. Unknown keys fail, listing the known."""
    if value is False:
        return None
    for key in mapping(value, "retry"):
        check_choice("key of retry", key, [field.name for field in dataclasses.fields(Retry)])
    return Retry(**value)


def with_more(resources: Resources, cause: str, limits: Retry) -> Resources | None:
    """Twice the memory or the time, or as much as the limits allow; None where that is no more than before."""
    name = {"memory": "memory_gb", "time": "minutes"}[cause]
    before, limit = getattr(resources, name), getattr(limits, name)
    more = min(2 * before, 1_000_000 if limit is None else limit)
    return dataclasses.replace(resources, **{name: more}) if more > before else None


def read_resources(fields: dict) -> Resources:
    """Resources from YAML; unknown keys fail, listing the known."""
    for key in mapping(fields, "resources"):
        check_choice(
            "key of resources", key, [field.name for field in dataclasses.fields(Resources)]
        )
    return Resources(**fields)


def read_shapes(value: object) -> list[tuple[dict, dict]]:
    """Resource shapes as (what they are for, fields of Resources); the last that fits a cell decides each field."""
    shapes = []
    for entry in value if isinstance(value, list) else [value]:
        fields = dict(mapping(entry, "resources"))
        narrow = mapping(fields.pop("for", {}), "for of resources")
        for key in narrow:
            check_choice("key of for in resources", key, NARROWING)
        narrow = {
            key: {str(one) for one in (of if isinstance(of, list) else [of])}
            for key, of in narrow.items()
        }
        read_resources(fields)
        shapes.append((narrow, fields))
    return shapes


def _fits(spec: RunSpec, narrow: dict) -> bool:
    # The name of a pack without its split stands for the pack in all its splits.
    known_as = {"pack": {spec.pack, spec.pack.removesuffix(split_suffix_in(spec.pack))}}
    if spec.train_rows is None:
        known_as["train_rows"] = {"all", "None"}
    return all(
        not values.isdisjoint(known_as.get(key, {str(getattr(spec, key))}))
        for key, values in narrow.items()
    )


def resources_of(spec: RunSpec, shapes: list[tuple[dict, dict]]) -> Resources:
    fields: dict = {}
    for narrow, more in shapes:
        if _fits(spec, narrow):
            fields |= more
    if spec.is_classical and spec.architecture not in USES_GPU:
        fields |= {"gpus_per_rank": 0, "cpu_only": True}
    return Resources(**fields)


def unused(shapes: list[tuple[dict, dict]], specs: list[RunSpec]) -> list[str]:
    """A slip in `for` would leave cells with less time than was meant for them, silently."""
    unused = [narrow for narrow, _ in shapes if not any(_fits(spec, narrow) for spec in specs)]
    texts = [
        ", ".join(f"{key} {'/'.join(sorted(of))}" for key, of in narrow.items())
        for narrow in unused
        if narrow
    ]
    return [f"resources for {text} fit no cell" for text in texts]
