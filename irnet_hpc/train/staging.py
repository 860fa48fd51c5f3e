"""Copy a pack to a disk of the node, once for all processes of the node.

    python -m irnet_hpc.train ... --stage-dir /local/scratch    (auto: $SLURM_TMPDIR, else $TMPDIR)

The copy is <stage-dir>/irnet-<user id>/<hash of the content>/<name>.h5. The next
run can use it too, until the disk is cleaned. SLURM cleans $SLURM_TMPDIR after the job.
"""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from irnet_hpc.errors import UserError
from irnet_hpc.files import exclusive, remove_temporaries, replacing
from irnet_hpc.pack.store import Pack, open_pack

AUTO = ("SLURM_TMPDIR", "TMPDIR")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def stage(
    pack: Pack, stage_dir: str | None, environment: Mapping[str, str] = os.environ
) -> tuple[Path, str | None]:
    """Copy a pack to a disk of this node, unless the disk has a copy already.

    One process copies, the others wait.

    Args:
        pack: The open pack.
        stage_dir: The folder for the copy; `auto` for the node's temporary folder, None for no
            copy.
        environment: The environment variables that `auto` reads.

    Returns:
        The path from which to read the pack; and a message if a copy was wanted but could not be
        made, else None.

    Raises:
        UserError: If the folder cannot be written.
    """
    if stage_dir is None:
        return pack.path, None
    instead = f"the pack is not copied to this node but read from {pack.path}"
    if stage_dir == "auto":
        stage_dir = next((environment[name] for name in AUTO if environment.get(name)), None)
        if stage_dir is None:
            return pack.path, f"{instead}: neither ${' nor $'.join(AUTO)} is set"
    copy = _own_folder(Path(stage_dir)) / pack.identity["content_sha256"][:16] / pack.path.name
    copy.parent.mkdir(exist_ok=True)
    # This needs no lock, since a copy gets its name only when it is complete.
    if _is_copy(copy, pack):
        return copy, None
    with exclusive(copy.parent / ".lock"):
        if _is_copy(copy, pack):
            return copy, None
        remove_temporaries(copy)  # left by a process that was killed
        n_bytes, free = pack.path.stat().st_size, shutil.disk_usage(copy.parent).free
        try:
            if n_bytes > free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with replacing(copy) as temporary:
                shutil.copyfile(pack.path, temporary)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            sizes = f"{free / 2**20:,.0f} MiB free, and the pack needs {n_bytes / 2**20:,.0f}"
            return pack.path, f"{instead}: {copy.parent} has {sizes}"
    return copy, None


def _own_folder(stage_dir: Path) -> Path:
    """Make a folder that only this user can write, on a disk that users may share."""
    folder = stage_dir / f"irnet-{os.getuid()}"
    try:
        stage_dir.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--stage-dir must be a folder to write in, got {stage_dir}: {error.strerror}"
        ) from None
    about = folder.lstat()
    if folder.is_symlink() or about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise UserError(f"--stage-dir needs a folder that only its user can write, got {folder}")
    return folder


def _is_copy(copy: Path, pack: Pack) -> bool:
    """Return True if a file has the same size and identity (with the content hash) as the pack."""
    try:
        if copy.stat().st_size != pack.path.stat().st_size:
            return False
        with open_pack(copy) as opened:
            return opened.identity == pack.identity
    except (OSError, UserError):
        return False
