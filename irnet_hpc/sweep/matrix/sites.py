"""Sites: what a cluster wants to be told, by name or path."""

import dataclasses
import os
from pathlib import Path

from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.sweep.matrix.yaml_file import load_yaml

SITES = (Path("env/sites"), Path(__file__).parents[3] / "env" / "sites")


@dataclasses.dataclass(frozen=True)
class Site:
    """What a cluster wants to be told. The only place where one is named is env/sites/<site>.yaml."""

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    modules: list = dataclasses.field(default_factory=list)  # loaded before anything runs
    setup: list = dataclasses.field(default_factory=list)  # lines of shell, after the modules
    srun_args: list = dataclasses.field(default_factory=list)  # e.g. --mpi=pmix
    sbatch: dict = dataclasses.field(
        default_factory=dict
    )  # any further option: {reservation: x, exclusive: true}
    gpus_per_task: int = 0  # of a training's rank, where the matrix does not ask for GPUs
    gpu_gb: int = 0  # memory of a GPU, from which `--bundle auto` follows; 0: not known, so that every cell has its own job


def read_site(name: str | None) -> Site:
    """A site by name or path, else $IRNET_SITE, else one that adds nothing. Raises UserError listing the known."""
    name = name or os.environ.get("IRNET_SITE")
    if not name:
        return Site()
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = {file.stem: file for folder in SITES for file in folder.glob("*.yaml")}
        path = known[check_choice("site", name, known)]
    try:
        table = load_yaml(path)
        kinds = {field.name: field.type for field in dataclasses.fields(Site)}
        for key, value in table.items():
            kind = kinds[check_choice("key", key, kinds)]
            kind = str if kind == str | None else kind
            if not isinstance(value, kind) or isinstance(value, bool):
                raise UserError(f"{key} must be of type {kind.__name__}, however: {value!r}")
    except UserError as error:
        raise UserError(f"site {path}: {error}") from None
    return Site(**table)
