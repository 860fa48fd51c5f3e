"""Read a site: the options that a cluster needs for every job."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.runs.yaml_file import load_yaml
from irnet_hpc.sweep.matrix.fields import check_keys, check_values

# Searched in the current folder, and in the clone that contains the package.
SITES = (Path("env/sites"), Path(__file__).parents[3] / "env" / "sites")


MAX = 1_000_000


@dataclasses.dataclass(frozen=True)
class WholeNodes:
    """A node of a cluster that gives whole nodes to its jobs: the keys of `whole_nodes`."""

    cores: Annotated[int, Meta(ge=1, le=MAX, description="cores of a node")]
    memory_gb: Annotated[float, Meta(ge=0.1, le=MAX, description="memory of a node, in GiB")]
    gpus: Annotated[int, Meta(ge=0, le=MAX, description="GPUs of a node")] = 0
    minutes: Annotated[
        int,
        Meta(ge=1, le=MAX, description="the longest time limit of a job of workers"),
    ] = 1440


@dataclasses.dataclass(frozen=True)
class Site:
    """The options that a cluster needs for every job: the keys of a site file."""

    account: Annotated[str | None, Meta(description="`sbatch --account`")] = None
    partition: Annotated[str | None, Meta(description="`sbatch --partition`")] = None
    qos: Annotated[str | None, Meta(description="`sbatch --qos`")] = None
    constraint: Annotated[str | None, Meta(description="`sbatch --constraint`")] = None
    modules: Annotated[
        list, Meta(description="environment modules, loaded in this order before anything runs")
    ] = dataclasses.field(default_factory=list)
    setup: Annotated[list, Meta(description="lines of shell, run after the modules are loaded")] = (
        dataclasses.field(default_factory=list)
    )
    srun_args: Annotated[
        list, Meta(description="options of the srun that starts the ranks, e.g. `--mpi=pmix`")
    ] = dataclasses.field(default_factory=list)
    sbatch: Annotated[
        dict,
        Meta(description="any other option of sbatch: `{reservation: x, exclusive: true}`"),
    ] = dataclasses.field(default_factory=dict)
    gpus_per_task: Annotated[
        int, Meta(ge=0, description="GPUs of each rank, where the matrix does not ask for any")
    ] = 0
    gpu_gb: Annotated[
        int,
        Meta(
            ge=0,
            description="memory of a GPU in GiB, which `--bundle auto` needs; "
            "0: unknown, so that every cell has its own job",
        ),
    ] = 0
    whole_nodes: Annotated[
        dict | None,
        Meta(
            description="the node of a cluster that gives whole nodes (see below): `submit` then "
            "submits jobs of workers, which fill a node with cells"
        ),
    ] = None

    @property
    def node(self) -> WholeNodes | None:
        """The node that `whole_nodes` describes; None if the cluster shares its nodes."""
        return None if self.whole_nodes is None else WholeNodes(**self.whole_nodes)

    def sbatch_options(self) -> dict[str, Any]:
        """Return the options of `sbatch` that every job gets, in sbatch's own spelling.

        An option that is false or null is left out.
        """
        # Without kill-on-invalid-dep, a job whose pack failed would wait for ever, and so would the
        # aggregator. submitit takes no_requeue, too, so it must not stand beside requeue.
        stated = {"kill-on-invalid-dep": "yes", "requeue": True} | {
            option.replace("_", "-"): value for option, value in self.sbatch.items()
        }
        # 0 is a value (nice: 0), though it equals False.
        options = {
            option: value
            for option, value in stated.items()
            if value is not None and value is not False
        }
        if stated["requeue"] is False or "no-requeue" in options:
            options.pop("requeue", None)
            # Left out, the cluster's JobRequeue would decide.
            options["no-requeue"] = True
        return options


def read_site(name: str | None) -> Site:
    """Read a site.

    Args:
        name: A name in env/sites, or a YAML file; None: $IRNET_SITE, else a site that adds nothing.

    Raises:
        UserError: The site does not exist (the message lists the known sites), or a key or a value
            is wrong.
    """
    name = name or os.environ.get("IRNET_SITE")
    if not name:
        return Site()
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = {file.stem: file for folder in SITES for file in folder.glob("*.yaml")}
        path = known[check_choice("site", name, known)]
    try:
        table = load_yaml(path)
        check_keys("key", table, Site)
        check_values(table, Site)
        if (node := table.get("whole_nodes")) is not None:
            check_keys("key of whole_nodes", node, WholeNodes)
            check_values(node, WholeNodes, "whole_nodes")
            for name in ("cores", "memory_gb"):
                if name not in node:
                    raise UserError(f"whole_nodes must state {name}, got {sorted(node)}")
    except UserError as error:
        raise UserError(f"site {path}: {error}") from None
    return Site(**table)
