"""Copy the example matrices, SLURM scripts and site templates of a clone into a folder.

In a clone these files are in folders at the top; setup.py copies them into a wheel, below
irnet_hpc/sweep/templates.
"""

import shutil
from pathlib import Path

from irnet_hpc.errors import UserError

# Folder of a clone -> the files of the folder that are copied.
FOLDERS = {"jobs": "*.yaml", "slurm": "*.sh", "env/sites": "*"}
INSTALLED = Path(__file__).with_name("templates")
CLONE = Path(__file__).parents[2]


def templates() -> dict[Path, Path]:
    """Find the templates: path below the folder to fill -> file to copy.

    Raises:
        UserError: The package was installed without them.
    """
    top = INSTALLED if INSTALLED.is_dir() else CLONE
    found = {
        file.relative_to(top): file
        for folder, pattern in FOLDERS.items()
        for file in sorted((top / folder).glob(pattern))
        if file.is_file()
    }
    if not found:
        raise UserError(
            f"this installation has no templates in {INSTALLED}; install it from a wheel"
        )
    return found


def lay_down(folder: Path) -> tuple[list[Path], list[Path]]:
    """Copy the templates to a folder. Existing files are never overwritten.

    Args:
        folder: The folder to fill, which is created if it is missing.

    Returns:
        The files that were written, and the files that existed already and were left unchanged.
    """
    written, kept = [], []
    for path, source in templates().items():
        target = folder / path
        if target.exists() or target.is_symlink():
            kept.append(target)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        # copy() keeps the permissions, since scripts are executable.
        shutil.copy(source, target)
        written.append(target)
    return written, kept
