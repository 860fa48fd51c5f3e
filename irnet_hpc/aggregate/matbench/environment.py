"""Install Matbench's package in an environment of its own, once.

matbench 0.6 pins scipy 1.7.3 and scikit-learn 1.0.1, which have no wheels for today's Python. Of
its requirements only those are installed that it needs to be imported, to record and to score, in
releases with which it was seen to work. The environment is kept beside the wheels, in
`$XDG_CACHE_HOME/irnet_hpc/`, by default below ~/.cache.
"""

import hashlib
import json
import logging
import platform
import shutil
import sys
import tempfile
import venv
from pathlib import Path

from irnet_hpc.data.download.pip import Errand, run_pip
from irnet_hpc.data.download.wheels import MATBENCH, cache_folder, obtain_wheels
from irnet_hpc.errors import UserError
from irnet_hpc.files import exclusive

logger = logging.getLogger(__name__)
# Seen with these: matbench 0.6 imports, records, writes and reads its file, on Python 3.11. None
# brings requirements of its own.
REQUIREMENTS = (
    *("matminer==0.10.1", "pymatgen-core==2026.10.16", "monty==2026.10.21"),
    *("numpy==2.4.6", "pandas==2.3.3", "scipy==1.17.1", "scikit-learn==1.9.1"),
    *("certifi==2026.10.19.post1", "cloudpickle==3.1.3", "idna==3.20", "joblib==1.6.0"),
    *("narwhals==2.29.0", "orjson==3.13.0", "python-dateutil==4.0.0", "pytz==2026.6"),
    *("requests==2.34.2", "ruamel.yaml==0.19.1", "tabulate==0.10.0", "threadpoolctl==3.8.0"),
    *("tqdm==4.70.1", "typing_extensions==4.16.0", "urllib3==2.8.0"),
)
N_BYTES = 450_000_000
OTHERWISE = "the tables of `aggregate` need none of this; leave out --matbench"


def matbench_python() -> Path:
    """Return the Python of an environment that has Matbench's package; install it if necessary.

    Raises:
        UserError: if pip cannot install it.
    """
    parts = [platform.python_version(), sys.platform, platform.machine(), MATBENCH.sha256]
    digest = hashlib.sha256(json.dumps([*parts, *REQUIREMENTS]).encode()).hexdigest()[:12]
    kept = cache_folder().parent
    folder = kept / f"matbench-{MATBENCH.version}-{digest}"
    python = folder / "bin" / "python"
    if python.exists():
        return python

    def say_waiting(_: str) -> None:
        logger.info("another process is installing %s; waiting until it ends", MATBENCH.requirement)

    wheel = obtain_wheels([MATBENCH])[MATBENCH]
    try:
        with exclusive(kept / f".{folder.name}.lock", say_waiting, remove=True):
            # The process that we waited for may have installed it.
            if not python.exists():
                _install(wheel, folder)
    except OSError as error:
        raise UserError(
            f"{MATBENCH.requirement} cannot be installed in {folder}: {error.strerror or error}; "
            f"name another folder with XDG_CACHE_HOME"
        ) from None
    return python


def _install(wheel: Path, folder: Path) -> None:
    """Install the package and its requirements, and give the environment its name at the end."""
    logger.info(
        f"installing {MATBENCH.requirement} in an environment of its own, {folder} "
        f"({N_BYTES / 1e6:.0f} MB, once)"
    )
    temporary = Path(tempfile.mkdtemp(prefix=".matbench.", dir=folder.parent))
    try:
        # Without pip, which Debian's Python cannot install; ours works for it (pip 22.3 or later).
        venv.create(temporary / "venv", with_pip=False, symlinks=True)
        command = ["--python", str(temporary / "venv" / "bin" / "python"), "install", "--no-deps"]
        command += ["--only-binary=:all:", "--no-compile", "--no-user", "--progress-bar=off"]
        errand = Errand("Matbench's environment", temporary, N_BYTES, folder.parent, OTHERWISE)
        run_pip([*command, str(wheel), *REQUIREMENTS], errand)
        # A virtual environment finds its files from where its Python lies, so it can be moved.
        (temporary / "venv").rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
