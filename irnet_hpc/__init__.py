"""Distributed training of the IRNet family of deep residual regression networks on materials data.

python -m irnet_hpc.pack --source alloys          raw table -> features -> pack (chunked HDF5)
python -m irnet_hpc.train --pack alloys-magpie --property mixing_enthalpy --architecture irnet --depth 17
python -m irnet_hpc.sweep run jobs/smoke.yaml     a matrix of such runs
python -m irnet_hpc.aggregate results/            the tables
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`irnet_hpc.IRNetRegressor`, without torch for whoever does not ask for it."""
    if name == "IRNetRegressor":
        from irnet_hpc.train.regressor import IRNetRegressor

        return IRNetRegressor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
