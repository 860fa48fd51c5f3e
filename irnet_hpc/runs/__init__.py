"""Describe runs and read what they leave behind.

A run is one training: its specification (`RunSpec`), its recipe or grid, and the key, a hash of
everything that decides its numbers. Its folder (`RunFolder`) holds the result, the lease of the
process that trains it, and the predictions on the test rows. `collect_runs` reads all
finished runs below a folder. Nothing here needs torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "collect": ["FinishedRun", "Gap", "collect_runs", "one_a_property"],
        "folds": [
            "JoinedRuns",
            "base_name",
            "chosen_on_val",
            "join_folds",
            "n_folds_of",
            "out_of_fold_csv",
            "write_out_of_fold",
        ],
        "folder": ["SLOTS", "SUFFIXES", "RunError", "RunFolder", "names_in", "seconds_since_1970"],
        "classical_grids": ["AS_NUMBERS", "GRID", "GRIDS", "USES_GPU", "Grid", "point_text"],
        "lease": [
            "LEASE_FILE",
            "N_BEATS",
            "Lease",
            "LeaseLost",
            "Leases",
            "RunIsHeld",
            "SeenLease",
            "expiry_s",
            "file_server_time",
            "is_expired",
            "new_lease",
            "read_lease",
        ],
        "pack_identity": ["differing_fields", "without_content_hash"],
        "predictions": [
            "LabelledRows",
            "Predictions",
            "SplitRows",
            "Splits",
            "has_predictions",
            "pool_splits",
            "read_predictions",
            "readable_runs",
        ],
        "predictions_file": ["read_arrays"],
        "recipes": [
            "DEFAULT_RECIPE",
            "MIN_BATCH",
            "MIN_ROWS",
            "RECIPES",
            "Recipe",
            "cannot_start",
            "fitted_fields",
            "fitted_to",
            "fitting_batch",
            "resolve",
            "states_batch",
        ],
        "result": ["FAR_ABOVE", "RunResult", "read_result"],
        "spec": [
            "ARCHITECTURES",
            "PROTOCOLS",
            "RunSpec",
            "check_properties",
            "defaults",
            "known_architecture",
            "model_name",
            "model_of",
            "read_recipe",
            "read_spec",
            "refuse_mixed",
            "refuse_repeated",
            "run_folder",
            "run_id",
            "run_key",
            "run_name",
            "shape_of",
        ],
        "state_names": ["Cause", "CellState", "GapState"],
        "yaml_file": ["load_yaml", "parse_yaml"],
    },
)
