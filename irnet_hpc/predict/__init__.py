"""Predict with finished runs: ensembles of models, intervals, and flags for unfamiliar rows.

`members.py` reads a model and `committee.py` makes an ensemble of several. `candidates.py` reads
the rows, `screening.py` predicts them batch by batch, and `output.py` writes the predictions.
`model.py` does the same from Python, and `saved.py` reads the folders that `irnet_hpc.fit` writes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "best_run": ["is_kept"],
        "committee": [
            "EnsembleReport",
            "calibrate_ensemble",
            "describe_report",
            "load_ensemble",
            "own_pack",
        ],
        "intervals": ["ConformalInterval", "SteppedInterval"],
        "importance": [
            "N_SHUFFLES",
            "SHUFFLED_ROWS",
            "SHUFFLE_SEED",
            "Importance",
            "importance_of",
        ],
        "held_out": ["Evidence", "HeldOut"],
        "members": [
            "ClassicalMember",
            "Member",
            "NetworkMember",
            "fold_normalisation",
            "make_predictor",
            "read_member",
        ],
        "model": ["DEFAULT_LEVEL", "Model", "load_model"],
        "portable": ["licence_of", "load_portable", "write_evidence"],
        "run_folders": ["runs_in"],
        "saved": ["FILE", "PACKS", "RESULTS", "SavedFit", "choose_runs", "read_fit", "write_fit"],
        "screening": ["ROUNDING", "Ensemble", "Spread", "spread_of", "training_elements"],
        "structure_features": ["featurize_structures"],
        "weights": ["weigh"],
    },
)
