"""Fit a table in one call from Python, and keep, load and show the fitted model.

`table_fit.py` packs the table, trains the models and chooses one. `fitted.py` is the model that it
returns. Both are made of the libraries below the commands `pack`, `train`, `aggregate` and
`predict`, and everything is in folders that these commands read.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "table_fit": ["MODELS", "fit"],
        "fitted": ["FittedModel", "load"],
    },
)
