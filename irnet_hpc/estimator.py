"""Allow loading regressors that were pickled before the package had folders.

Such a pickle names the class first, as `irnet_hpc.estimator.IRNetRegressor`, and then the modules
of what the regressor holds, which get their old names here.
"""

import importlib
import sys

from irnet_hpc.train.regressor import IRNetRegressor

__all__ = ["IRNetRegressor"]

MOVED = {
    "model": "models.network",
    "normalisation": "models.normalisation",
    "dropout": "models.dropout",
    "recipes": "runs.recipes",
    "scaling": "train.scaling",
}
for _old, _new in MOVED.items():
    sys.modules[f"{__package__}.{_old}"] = importlib.import_module(f"{__package__}.{_new}")
