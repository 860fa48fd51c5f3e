"""Copy the example matrices, SLURM scripts and sites into the package of a wheel.

All else is in setup.cfg. `python -m irnet_hpc.sweep init DIR` lays the copies down.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("jobs", "slurm", "env/sites")


class BuildWithTemplates(build_py):
    """Build the package, with the templates below irnet_hpc/sweep/templates."""

    def run(self) -> None:
        """Build the package, then copy the templates."""
        super().run()
        if self.editable_mode:
            # Then the clone itself has them.
            return
        for folder in FOLDERS:
            target = Path(self.build_lib, "irnet_hpc/sweep/templates", folder)
            shutil.copytree(folder, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithTemplates})
