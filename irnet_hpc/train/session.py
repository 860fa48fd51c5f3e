"""Train the runs of a request: open the pack, claim the runs, train them, record failures.

All ranks call every function. Only rank 0 reads and writes run folders.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from irnet_hpc.distributed.engines import Comm, from_root, together
from irnet_hpc.distributed.peers import noted
from irnet_hpc.errors import PeerLost, UserError, check_choice, one_line
from irnet_hpc.pack.store import Pack, open_pack, pack_path
from irnet_hpc.runs.lease import Leases, RunIsHeld
from irnet_hpc.train.causes import cause_of
from irnet_hpc.train.classical import fit_run
from irnet_hpc.train.networks import train_networks
from irnet_hpc.train.request import TrainRequest, check_options, make_runs, specify
from irnet_hpc.train.run import Run, TrainOptions
from irnet_hpc.train.staging import stage
from irnet_hpc.train.stream import PackUnreadable
from irnet_hpc.train.warm_start import check_start, read_origin

logger = logging.getLogger(__name__)


class Claims(NamedTuple):
    """The runs of a request: those to train here, those done before, and those that others hold."""

    to_train: list[Run]
    done: list[Run]
    held: list[tuple[Run, RunIsHeld]]  # each with the error that names the other process

    def joined(self, others: "Claims") -> "Claims":
        """Return these claims and `others` together."""
        return Claims(
            self.to_train + others.to_train, self.done + others.done, self.held + others.held
        )


@contextlib.contextmanager
def open_runs(
    request: TrainRequest, options: TrainOptions, comm: Comm, leases: Leases
) -> Iterator[tuple[Pack, list[Run]]]:
    """Open the pack of a request and make its runs.

    Raises:
        UserError: On every rank, if the request is invalid, or the pack or the origin cannot be
            read.
    """

    def read() -> tuple:
        check_options(request, options)
        origin = None if request.init is None else read_origin(request.init)
        path = pack_path(request.pack, options.pack_dir)
        cells = specify(request, path.stem, origin)
        for spec, recipe in cells:
            check_start(spec, recipe, origin)
        return path, cells, origin

    def check_properties() -> None:
        for spec, _ in cells:
            for name in spec.properties:
                check_choice(f"property of pack {spec.pack}", name, pack.units)

    path, cells, origin = together(comm, read)
    with together(comm, lambda: open_pack(path)) as pack:
        together(comm, check_properties)
        yield pack, make_runs(cells, pack, origin, request, leases)


def train_runs(runs: Sequence[Run], pack: Pack, options: TrainOptions, comm: Comm) -> bool:
    """Train those runs that have no result yet, and write the result of each into its folder.

    Args:
        runs: Runs of one model on one pack, from `open_runs`.
        pack: The pack of all runs.
        options: The options that do not change a result, such as the device.
        comm: The ranks that train together; `Alone()` for one process.

    Returns:
        False if a signal or the end of the job stopped the training. Its progress has been saved,
        and the same call continues from there.

    Raises:
        RunIsHeld: If another process trains one of the runs; all other runs have been trained.
        UserError: If a run failed; all other runs have been trained.
    """
    claims = claim_runs(runs, options, comm)
    return train_claimed(claims, pack, options, comm)


def claim_runs(runs: Sequence[Run], options: TrainOptions, comm: Comm) -> Claims:
    """Acquire the lease of each run that is neither done nor held by another process."""
    claims = Claims([], [], [])
    for run in runs:
        is_claimed, held = _claim(run, options.force, comm)
        if is_claimed:
            claims.to_train.append(run)
        elif held:
            claims.held.append((run, RunIsHeld(held)))
            if comm.rank == 0 and len(runs) > 1:
                logger.info("left out: %s", held)  # now, since the other runs are trained first
        else:
            claims.done.append(run)
            if comm.rank == 0:
                logger.info("already done: %s", run.folder.result_json)
    return claims


def _claim(run: Run, force: bool, comm: Comm) -> tuple[bool, str | None]:
    """Claim a run for all ranks.

    Returns:
        True if this command now holds the run; and a message that names the process that holds the
        run if it is another one, else None.
    """
    leases = run.folder.leases

    def claim() -> tuple[str | None, str | None]:
        try:
            is_claimed = run.folder.claim(run.key, force)
        except RunIsHeld as error:
            return None, str(error)
        return (leases.token_of(run.folder.path) if is_claimed else None), None

    token, held = from_root(comm, claim)
    if token and comm.rank != 0:
        leases.share(run.folder.path, token)
    return token is not None, held


def train_claimed(claims: Claims, pack: Pack, options: TrainOptions, comm: Comm) -> bool:
    """Train the claimed runs as `train_runs` does, then raise RunIsHeld if others were held."""
    is_finished = True
    if claims.to_train:
        try:
            is_finished = _train(claims.to_train, pack, options, comm)
        except PackUnreadable:
            raise
        except UserError as error:
            if not claims.held:
                raise
            # If a run has neither result nor error, a sweep takes it as held only if the exit
            # status says so.
            raise RunIsHeld(f"{error}; {claims.held[0][1]}") from error
    if claims.held and is_finished:
        n_runs = len(claims.to_train) + len(claims.done) + len(claims.held)
        prefix = f"{len(claims.held)} of {n_runs} cells were left out: " if n_runs > 1 else ""
        raise RunIsHeld(f"{prefix}{claims.held[0][1]}")
    return is_finished


def _train(runs: list[Run], pack: Pack, options: TrainOptions, comm: Comm) -> bool:
    """Train runs; if `stage_dir` is given, read the pack from a copy on the node."""
    with contextlib.ExitStack() as packs:
        with failure_noted(runs, comm):
            path, reason = together(comm, lambda: stage(pack, options.stage_dir))
            if reason and comm.local_rank == 0:
                logger.warning("%s", reason)
            is_copy = path != pack.path
            if is_copy:
                pack = packs.enter_context(together(comm, lambda: open_pack(path)))
        if runs[0].spec.is_classical:
            return _fit_in_turn(runs, pack, options, comm)
        unfinished = list(runs)
        with failure_noted(unfinished, comm):
            return train_networks(unfinished, pack, options, comm, is_copy)


def _fit_in_turn(runs: list[Run], pack: Pack, options: TrainOptions, comm: Comm) -> bool:
    """Fit classical models, one after the other."""
    for run in runs:
        with failure_noted([run], comm):
            if not fit_run(run, pack, options, comm):
                return False
        run.folder.release()
    return True


@contextlib.contextmanager
def failure_noted(unfinished: Sequence[Run], comm: Comm) -> Iterator[None]:
    """If the block raises an exception, write it into error.json of each unfinished run."""

    def note(error: Exception) -> None:
        for run in unfinished:
            # If another rank failed, it has already written the reason.
            is_noted = isinstance(error, PeerLost) and run.folder.error_json.exists()
            if (comm.rank == 0 and not is_noted) or isinstance(error, PackUnreadable):
                with contextlib.suppress(
                    OSError
                ):  # the disk may be full, which may be the error itself
                    run.folder.write_error(one_line(error), cause_of(error))

    try:
        with noted(comm.peers, note):
            yield
    except Exception as error:
        note(error)
        raise
