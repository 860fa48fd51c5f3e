"""Predict with finished runs: ensembles of networks, intervals, and flags for unfamiliar rows.

`members.py` reads a network, `committee.py` makes an ensemble of several, `screening.py` predicts
`candidates.py` batch by batch, `output.py` writes the list; `model.py` is the way from Python.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "committee": ["EnsembleReport", "calibrate_ensemble", "load_ensemble", "own_pack"],
        "members": ["Member", "fold_normalisation", "read_member"],
        "model": ["Model", "load_model"],
        "screening": ["training_elements"],
    },
)
