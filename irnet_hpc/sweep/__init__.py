"""Train a matrix of cells: plan it, run it here or through SLURM, and show its progress.

The matrix is YAML (docs/matrix.md). Finished cells are never trained again: the state of each cell
follows from its run folder, the journals and the scheduler.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bundles": ["MAX_REPLICAS", "n_that_fit", "replica_gb"],
        "context": ["SweepContext", "SweepOptions", "open_sweep"],
        "jobs": ["outside_any_job", "train_options"],
        "cell_states": ["CellStatus", "Ledger", "cell_name", "read_ledger"],
        "cell_process": ["horovodrun"],
        "local": ["RunReport", "run"],
        "matrix.matrix": ["Cell", "Matrix", "read_matrix"],
        "matrix.resources": ["Resources"],
        "matrix.sites": ["Site", "read_site"],
        "plan": ["Plan"],
        "prune": ["Waste", "WasteKind", "remove"],
        "sbatch": ["slurm_parameters", "state_folder", "submit_jobs"],
        "submit": ["Submission"],
        "table": ["as_frame", "run_sweep"],
    },
)
