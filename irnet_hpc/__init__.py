"""Train, compare and use deep residual regression networks for materials properties.

The commands, each with `--help`:

    python -m irnet_hpc.pack --source my.csv        a table -> features and splits in one file
    python -m irnet_hpc.train --pack my-magpie --property hardness --architecture irnet --depth 17
    python -m irnet_hpc.sweep run jobs/smoke.yaml   a matrix of such trainings
    python -m irnet_hpc.aggregate results/          tables of their errors

The same from Python: the names in `__all__`. They are loaded when they are first used, so that
`import irnet_hpc` takes milliseconds and planning a matrix needs no torch.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from irnet_hpc.aggregate.report import make_tables as make_tables
    from irnet_hpc.errors import UserError as UserError
    from irnet_hpc.features.frame import featurize as featurize
    from irnet_hpc.features.transformer import FormulaFeaturizer as FormulaFeaturizer
    from irnet_hpc.fitting.fitted import load as load
    from irnet_hpc.fitting.table_fit import fit as fit
    from irnet_hpc.pack.store import load_pack as load_pack
    from irnet_hpc.pack.table import pack_table as pack_table
    from irnet_hpc.predict.model import load_model as load_model
    from irnet_hpc.predict.structure_features import featurize_structures as featurize_structures
    from irnet_hpc.sweep.table import run_sweep as run_sweep
    from irnet_hpc.train.library import train_model as train_model
    from irnet_hpc.train.regressor import IRNetRegressor as IRNetRegressor

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "fitting.table_fit": ["fit"],
        "fitting.fitted": ["load"],
        "pack.table": ["pack_table"],
        "pack.store": ["load_pack"],
        "features.frame": ["featurize"],
        "features.transformer": ["FormulaFeaturizer"],
        "train.library": ["train_model"],
        "sweep.table": ["run_sweep"],
        "aggregate.report": ["make_tables"],
        "predict.model": ["load_model"],
        "predict.structure_features": ["featurize_structures"],
        "train.regressor": ["IRNetRegressor"],
        "errors": ["UserError"],
    },
)
