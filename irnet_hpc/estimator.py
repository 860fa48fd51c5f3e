"""Allow loading regressors that were pickled before the package had folders.

Such a pickle refers to the class as `irnet_hpc.estimator.IRNetRegressor`, and to the modules of its
contents by their old names. This module maps the old names to the present modules.
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
