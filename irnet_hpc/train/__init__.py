"""Train networks and classical models, and write the result of each run into its folder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "classical_file": ["read_classical"],
        "cli": ["main"],
        "dataset": ["Dataset", "Part", "load"],
        "kept_rows": ["MAX_KEPT"],
        "library": ["train_model"],
        "model_file": [
            "KeptRun",
            "finished_spec",
            "read_finished",
            "read_tensors",
            "write_compact",
            "write_tensors",
        ],
        "regressor": ["IRNetRegressor"],
        "request": ["RequestedCell", "TrainRequest"],
        "run": ["PLACES", "Run", "TrainOptions"],
        "scaling": ["Scaling", "nonzero"],
        "session": ["claim_runs", "open_runs", "train_claimed", "train_runs"],
        "threads": ["n_free_cores", "with_threads"],
        "warm_start": ["Origin", "read_origin"],
    },
)
