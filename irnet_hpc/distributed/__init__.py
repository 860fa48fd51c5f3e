"""Run on several processes, nodes and cores, and under SLURM.

`engines` connects the ranks of a training by Horovod or torch.distributed, `mpi` connects the ranks
of packing. `launch` finds out which launcher started them, and `rendezvous` connects those that got
no address from it. `worker_pool` runs pure functions on the cores of one machine. `slurm_commands`
runs SLURM's commands, and `job_end` asks SLURM, PBS or LSF when this job ends. `processes` and
`memory` read what the operating system knows about processes and memory.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "allreduce": ["sum_step"],
        "engines": [
            "Alone",
            "Comm",
            "from_root",
            "start",
            "together",
        ],
        "gpus": ["check_own_gpus", "device_of", "has_driver", "have_own_gpus", "why_none"],
        "job_end": ["SCHEDULERS", "end_of_job"],
        "launch": [
            "DEVICES",
            "ENGINES",
            "LAUNCHERS",
            "Launch",
            "detect",
            "n_threads",
            "numbers_per_node",
            "stated_threads",
        ],
        "memory": ["cgroup_limits", "free_bytes"],
        "mpi": ["Ranks", "run"],
        "peers": ["noted"],
        "processes": [
            "STOP_SIGNALS",
            "Shared",
            "StopSignals",
            "handlers_restored",
            "ignore_termination_signals",
            "is_alive",
            "keep_freed_memory",
            "leave_at_once",
            "machine",
            "no_warnings",
            "process_name",
            "wait_quietly",
        ],
        "slurm_commands": [
            "NO_CLUSTER",
            "OUT_OF_TIME",
            "SIGNAL_LEAD_S",
            "SIGNAL_SLACK_S",
            "STATES_OUT_OF_MEMORY",
            "STATES_OUT_OF_TIME",
            "SIGNALS_OF_NO_MEMORY",
            "SIGNALS_OF_NO_TIME",
            "STATE_FAILED",
            "Job",
            "JobEnd",
            "SlurmError",
            "host_names",
            "how_ended",
            "max_array_size",
            "own_job",
            "requeue",
            "restart_count",
            "set_dependency",
            "smallest_node",
            "squeue",
            "stop_by",
        ],
        "worker_pool": ["LeftOut", "at", "available_cores", "in_order"],
    },
)
