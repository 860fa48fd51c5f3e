"""Check whether this environment can run a matrix, and say what to do if it cannot.

Each group of checks is a module with a table `CHECKS`: `machine`, `engine`, `filesystem` and
`cluster`. `two_nodes` submits a real job. A check is a function that takes `Settings` and returns a
`Verdict`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checks": ["Check", "Level", "Settings", "Verdict"],
        "report": ["GROUPS", "Report", "run_checks"],
    },
)
