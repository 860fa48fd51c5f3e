"""Exchange the numbers of a training between ranks: by Horovod, by torch.distributed or not at all.

Each engine has the attributes rank, size, local_rank, uses_nccl (for tensors on GPUs) and peers
(which notices lost ranks, or None), and six operations: sum_ and broadcast_ (in place), exchange
and collect (slices of tensors), gather (objects), and close.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from irnet_hpc.distributed import launch
from irnet_hpc.distributed.gpus import device_of
from irnet_hpc.distributed.peers import Peers, watch
from irnet_hpc.distributed.rendezvous import meeting
from irnet_hpc.errors import PeerLost, UserError, check_choice

# A dead process is noticed at once, by its closed connection; these are for a host that vanishes.
LOST_S = 50  # seconds without an answer from a peer's background thread
# Seconds by which one rank may be later than another at a collective, since reading a pack or
# writing a model can take long.
STALL_S = 600

T = TypeVar("T")


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    """Raise PeerLost if a collective operation fails."""
    try:
        yield
    # HorovodInternalError and torch's DistBackendError are both RuntimeErrors.
    except RuntimeError as error:
        raise PeerLost(
            f"a rank is gone, so this one stops: {' '.join(str(error).split())[:300]}"
        ) from error


class Alone:
    """The engine for a single process, which has nobody to exchange numbers with."""

    name, rank, size, local_rank = "none", 0, 1, 0
    uses_nccl = False
    peers = None

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the ranks, in place."""
        return tensor

    def broadcast_(self, tensor: Tensor) -> Tensor:
        """Overwrite a tensor on every rank with the tensor of rank 0."""
        return tensor

    def exchange(self, slices: Tensor) -> Tensor:
        """Send row r of `slices` (size, k) to rank r, and return the rows received, (size, k)."""
        return slices

    def collect(self, own: Tensor) -> Tensor:
        """Collect the vector `own` (k,) of each rank, and return them on every rank, (size, k)."""
        return own[None]

    def gather(self, value: T) -> list[T]:
        """Collect the value of each rank, and return them on every rank."""
        return [value]

    def close(self) -> None:
        """Disconnect from the other ranks."""


class _Watched:
    """Watch the peers of an engine whose sums over GPUs do not make the host wait."""

    peers: Peers | None = None
    # Since when this rank is in an operation.
    _since: float | None = None
    # The end of the last sum on the GPU, and when it was asked for.
    _summed: tuple[torch.cuda.Event, float] | None = None

    @contextlib.contextmanager
    def _operation(self) -> Iterator[None]:
        """Raise PeerLost if a collective operation fails, or if a peer is already known as lost."""
        if self.peers is not None:
            self.peers.check()
        self._since = time.monotonic()
        try:
            with _peers():
                yield
        finally:
            self._since = None

    def _note_sum(self) -> None:
        """Note that a sum was asked for on the GPU, whose end the host does not wait for."""
        event = self._summed[0] if self._summed else torch.cuda.Event()
        event.record()
        self._summed = (event, time.monotonic())

    def _waits_since(self) -> float | None:
        since, summed = self._since, self._summed
        if since is None and summed is not None and not summed[0].query():
            return summed[1]
        return since


class Horovod(_Watched):
    """Horovod over Gloo, MPI or NCCL, depending on how it was built and on the launcher."""

    def __init__(self, where: launch.Launch | None, folder: Path, is_rare: bool = False) -> None:
        if is_rare and not torch.cuda.is_available():
            # Horovod's own thread asks all ranks every ms whether there is something to sum, and
            # waits for their answers on the cores on which they compute: a third of a step, by
            # benchmarks/ranks.py. On GPUs the cores are free.
            os.environ.setdefault("HOROVOD_CYCLE_TIME", "5")  # ms
            os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
        os.environ.setdefault("HOROVOD_STALL_CHECK_TIME_SECONDS", str(STALL_S // 2))
        os.environ.setdefault("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", str(STALL_S))
        os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", str(LOST_S))
        try:
            import horovod.torch as hvd
        except ImportError as error:
            raise UserError(
                f"Horovod cannot be imported ({error}); run env/setup.sh, or use --engine torch"
            ) from None
        self._hvd = hvd
        self.uses_nccl = torch.cuda.is_available() and bool(hvd.nccl_built())
        if self.uses_nccl:
            # The host need not wait for a sum, since steps run on the stream that Horovod's threads
            # order after it, the default one (0.28.1, DoAllreduce in torch/mpi_ops_v2.cc). Horovod
            # looks for sums each ms, which is as long as a step of a GPU.
            os.environ.setdefault("HOROVOD_ENABLE_ASYNC_COMPLETION", "1")
            os.environ.setdefault("HOROVOD_CYCLE_TIME", "0.1")  # ms
        # Without PMI in the step, MPI would make every process rank 0 of 1: then Horovod's own
        # rendezvous is used.
        has_pmi = "PMIX_RANK" in os.environ or "PMI_RANK" in os.environ
        if where and where.launcher in ("srun", "submitit") and not (has_pmi and hvd.mpi_built()):
            self._meet(where, folder)
        else:
            hvd.init()
        self.rank, self.size, self.local_rank = hvd.rank(), hvd.size(), hvd.local_rank()
        controller = (
            "mpi"
            if os.environ.get("HOROVOD_CONTROLLER") != "gloo" and hvd.mpi_enabled()
            else "gloo"
        )
        self.name = f"horovod ({'nccl' if self.uses_nccl else controller})"
        if self.uses_nccl:
            n_nodes = where.n_nodes if where else 1
            self.peers = watch(self, n_nodes, LOST_S, STALL_S, self._waits_since)

    def _meet(self, where: launch.Launch, folder: Path) -> None:
        from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
        from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

        tasks = _tasks(where)
        # Only the nodes that have this local rank, since some have fewer ranks; Horovod would wait
        # for one too many.
        across = [n > where.local_rank for n in tasks]

        def serve(host: str) -> int:
            hosts = ",".join(f"node{node}:{n}" for node, n in enumerate(tasks))
            # As Horovod's RendezvousServer does, which listens on every interface and asks for no
            # credentials.
            server = RendezvousHTTPServer((host, 0), RendezvousHandler, 0)
            server.init(get_host_assignments(parse_hosts(hosts), where.size))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self._server = server  # lives as long as this process
            return server.server_address[1]

        with meeting(where, folder, serve) as (address, port, interface):
            os.environ.update(
                HOROVOD_RANK=str(where.rank),
                HOROVOD_SIZE=str(where.size),
                HOROVOD_LOCAL_RANK=str(where.local_rank),
                HOROVOD_LOCAL_SIZE=str(where.local_size),
                HOROVOD_CROSS_RANK=str(sum(across[: where.node])),
                HOROVOD_CROSS_SIZE=str(sum(across)),
                HOROVOD_HOSTNAME=f"node{where.node}",
                HOROVOD_GLOO_RENDEZVOUS_ADDR=address,
                HOROVOD_GLOO_RENDEZVOUS_PORT=str(port),
                HOROVOD_GLOO_IFACE=interface,
                HOROVOD_CONTROLLER="gloo",
                HOROVOD_CPU_OPERATIONS="gloo",
            )
            self._hvd.init()

    def _sendable(self, tensor: Tensor) -> Tensor:
        """Return the tensor, or its copy in the memory of the CPU if Horovod needs one.

        Horovod 0.28.1 without CUDA accepts a tensor of a GPU, and the thread that would sum it then
        ends, so that the caller waits for ever.
        """
        return tensor.cpu() if tensor.is_cuda and not self._hvd.nccl_built() else tensor

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the ranks, in place."""
        # Horovod: the one allreduce. A name that comes again is negotiated once and then found in
        # Horovod's cache; calls of one name follow each other, since this one blocks.
        name = f"sum {tuple(tensor.shape)} {tensor.dtype}"
        sent = self._sendable(tensor)
        with self._operation():
            self._hvd.allreduce_(sent, op=self._hvd.Sum, name=name)
            if sent.is_cuda:
                self._note_sum()
        return tensor if sent is tensor else tensor.copy_(sent)

    def broadcast_(self, tensor: Tensor) -> Tensor:
        """Overwrite a tensor on every rank with the tensor of rank 0."""
        sent = self._sendable(tensor)
        with self._operation():
            self._hvd.broadcast_(sent, 0)
        return tensor if sent is tensor else tensor.copy_(sent)

    def exchange(self, slices: Tensor) -> Tensor:
        """Send row r of `slices` (size, k) to rank r, and return the rows received, (size, k)."""
        name, sent = f"exchange {tuple(slices.shape)} {slices.dtype}", self._sendable(slices)
        with self._operation():
            return self._hvd.alltoall(sent, name=name).to(slices.device)

    def collect(self, own: Tensor) -> Tensor:
        """Collect the vector `own` (k,) of each rank, and return them on every rank, (size, k)."""
        name, sent = f"collect {tuple(own.shape)} {own.dtype}", self._sendable(own)
        with self._operation():
            return self._hvd.allgather(sent[None], name=name).to(own.device)

    def gather(self, value: T) -> list[T]:
        """Collect the value of each rank, and return them on every rank."""
        # Horovod would name the operation after the type of each rank's value, and wait for ever
        # where they differ.
        with self._operation():
            return self._hvd.allgather_object(value, name="gather")

    def close(self) -> None:
        """Disconnect from the other ranks."""
        if self.peers is not None:
            self.peers.close()
        self._hvd.shutdown()


class Torch(_Watched):
    """torch.distributed over Gloo or NCCL.

    It passes the same tests as Horovod, whose last release was in June 2023, so it can replace
    Horovod.
    """

    def __init__(self, where: launch.Launch | None, folder: Path) -> None:
        import torch.distributed as dist

        self._dist = dist
        where = where or launch.Launch("none", 0, 1, 0, 1, 0, 1, str(os.getpid()))
        self.rank, self.size, self.local_rank = where.rank, where.size, where.local_rank
        timeout = timedelta(seconds=STALL_S)

        def serve(host: str) -> int:
            # A socket of our own, since the store's would listen on every interface, and its newer
            # backend takes none.
            listening = socket.create_server((host, 0), backlog=where.size)
            port = listening.getsockname()[1]
            self._server = dist.TCPStore(
                host or "0.0.0.0", port, is_master=True, wait_for_workers=False, timeout=timeout,
                master_listen_fd=listening.detach(), use_libuv=False,
            )  # fmt: skip
            return port

        if torch.cuda.is_available():
            # Else torch's watchdog aborts the process when NCCL reports that a peer is gone, before
            # a sentence can say so, and after STALL_S. Here `peers` does both (torch 2.13).
            os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
        with meeting(where, folder, serve) as (address, port, interface):
            os.environ["GLOO_SOCKET_IFNAME"] = interface
            device_of(self.local_rank)  # before NCCL, which takes the current one
            self.uses_nccl = torch.cuda.is_available()
            backend = "cpu:gloo,cuda:nccl" if self.uses_nccl else "gloo"
            store = dist.TCPStore(
                address, port, is_master=False, wait_for_workers=False, timeout=timeout
            )
            dist.init_process_group(
                backend, store=store, rank=self.rank, world_size=self.size, timeout=timeout
            )
        self.name = "torch"
        self.peers = watch(self, where.n_nodes, LOST_S, STALL_S, self._waits_since)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the ranks, in place."""
        with self._operation():
            self._dist.all_reduce(tensor)
            if tensor.is_cuda:
                self._note_sum()
        return tensor

    def broadcast_(self, tensor: Tensor) -> Tensor:
        """Overwrite a tensor on every rank with the tensor of rank 0."""
        with self._operation():
            self._dist.broadcast(tensor, 0)
        return tensor

    def exchange(self, slices: Tensor) -> Tensor:
        """Send row r of `slices` (size, k) to rank r, and return the rows received, (size, k)."""
        received = torch.empty_like(slices)
        with self._operation():
            self._dist.all_to_all_single(received, slices)
        return received

    def collect(self, own: Tensor) -> Tensor:
        """Collect the vector `own` (k,) of each rank, and return them on every rank, (size, k)."""
        collected = own.new_empty(self.size, *own.shape)
        with self._operation():
            self._dist.all_gather(list(collected), own)
        return collected

    def gather(self, value: T) -> list[T]:
        """Collect the value of each rank, and return them on every rank."""
        values: list[Any] = [None] * self.size
        with self._operation():
            self._dist.all_gather_object(values, value)
        return values

    def close(self) -> None:
        """Disconnect from the other ranks."""
        if self.peers is not None:
            self.peers.close()
        self._dist.destroy_process_group()


Comm = Alone | Horovod | Torch


def start(engine: str, folder: Path, is_rare: Callable[[int], bool] = lambda size: False) -> Comm:
    """Connect to the other ranks of this launch.

    Args:
        engine: `auto`, `horovod`, `torch` or `none`. `auto` is torch under torchrun, else Horovod
            if there are several ranks.
        folder: A folder that all ranks see, where rank 0 publishes its address.
        is_rare: Called with the number of ranks; returns True if that many ranks communicate only
            once per step. Horovod then polls less often.

    Raises:
        UserError: If the engine is not available, or finds a different number of ranks than was
            started; or if the job asks for several tasks and this is its only process, unless the
            engine is `none`.
    """
    check_choice("engine", engine, launch.ENGINES)
    try:
        where = launch.detect()
    except UserError:
        if engine != "none":
            raise
        where = None  # the user has said that this process is alone
    if engine != "none":
        launch.check_alone(where)
    torch.set_num_threads(launch.n_threads(where))
    if engine == "auto":
        engine = (
            "none"
            if not where or where.size == 1
            else "torch"
            if where.launcher == "torchrun"
            else "horovod"
        )
    if engine == "none" and where and where.size > 1:
        raise UserError(
            f"engine none is for one rank, got {where.size} started by {where.launcher}"
        )
    comm: Comm
    if engine == "horovod":
        comm = Horovod(where, folder, where is not None and is_rare(where.size))
    else:
        comm = Torch(where, folder) if engine == "torch" else Alone()
    launch.check_size(comm.size, where)
    return comm


def together(comm: Comm, function: Callable[[], T]) -> T:
    """Call a function on every rank; raise the first UserError of any rank on every rank."""
    error, value = None, cast(T, None)
    try:
        value = function()
    except (UserError, OSError) as caught:
        error = str(caught)
    errors = [text for text in comm.gather(error) if text is not None]
    if errors:
        raise UserError(errors[0])
    return value


def from_root(comm: Comm, function: Callable[[], T]) -> T:
    """Call a function on rank 0 alone, and return its value or raise its error on every rank."""
    outcome: tuple[T | None, str | None] = (None, None)
    if comm.rank == 0:
        try:
            outcome = (function(), None)
        except (UserError, OSError) as caught:
            outcome = (None, str(caught))
    value, error = comm.gather(outcome)[0]
    if error is not None:
        raise UserError(error)
    return cast(T, value)


def _tasks(where: launch.Launch) -> Sequence[int]:
    """Return the number of ranks on each node, equal unless SLURM says otherwise."""
    return where.tasks or [where.local_size] * where.n_nodes
