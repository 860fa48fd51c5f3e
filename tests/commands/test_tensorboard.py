"""Test event files for TensorBoard, read back by protobuf and a record reader of our own."""

import struct
from pathlib import Path

import pytest

from irnet_hpc import tensorboard
from irnet_hpc.console import ExitStatus
from irnet_hpc.errors import UserError
from irnet_hpc.files import write_json
from tests.commands.test_commands import run
from tests.test_layout import run_without

HEADER = "epoch,step,lr,train_mae,val_mae,seconds"
STARTED = 1795608000.0  # date -d 2026-11-25T12:00:00Z +%s


def make_run(folder: Path, *lines: str) -> Path:
    """Make a run folder whose history.csv has these lines, the last perhaps not whole yet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "history.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    write_json(folder / "run.json", {"attempts": [{"started": "2026-11-25T12:00:00+00:00"}]})
    return folder


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720, B.4), bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def check_masked_crc(data: bytes, stored: bytes) -> None:
    crc = crc32c(data)
    rotated = (crc >> 15) | ((crc << 17) & 0xFFFFFFFF)
    assert struct.unpack("<I", stored)[0] == (rotated + 0xA282EAD8) % 2**32


def read_events(path: Path) -> list:
    """Read the events of a file, and check the length and the checksums of each record."""
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        message, end = data[12 : 12 + length], 16 + length
        check_masked_crc(data[:8], data[8:12])
        check_masked_crc(message, data[12 + length : end])
        events.append(Event.FromString(message))
        data = data[end:]
    return events


def curves(path: Path) -> list[tuple[float, int, dict[str, float]]]:
    """Return (seconds, epoch, values) of each event after the first, which has the version."""
    first, *rest = read_events(path)
    assert first.file_version == "brain.Event:2"
    return [
        (
            event.wall_time - STARTED,
            event.step,
            {value.tag: value.simple_value for value in event.summary.value},
        )
        for event in rest
    ]


@pytest.fixture(autouse=True)
def _needs_tensorboardx():
    pytest.importorskip("tensorboardX")


def test_the_checksum_is_that_of_rfc_3720():
    assert crc32c(bytes(32)) == 0x8A9136AA  # B.4, 32 bytes of zeroes
    assert crc32c(bytes(range(32))) == 0x46DD794E  # 32 bytes of incrementing 00..1f
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


def test_an_event_file_holds_the_history_and_the_test_mae(tmp_path):
    folder = make_run(
        tmp_path / "pack/band_gap/irnet-17",
        "0,100,0.001,0.5,0.75,2.5",
        "300,30100,0.0005,0.25,0.375,700",
    )
    write_json(folder / "result.json", {"test_mae": 0.4375, "wall_time_s": 701.0})
    done = run("tensorboard", str(tmp_path))
    assert done.returncode == ExitStatus.OK, done.stderr
    assert str(tmp_path / "tensorboard") in done.stdout
    path = tmp_path / "tensorboard/pack/band_gap/irnet-17" / tensorboard.FILE_NAME
    rates = struct.unpack("<2f", struct.pack("<2f", 0.001, 0.0005))  # as float32
    assert curves(path) == [
        (2.5, 0, {"mae/train": 0.5, "mae/selection": 0.75, "learning_rate": rates[0]}),
        (700.0, 300, {"mae/train": 0.25, "mae/selection": 0.375, "learning_rate": rates[1]}),
        (701.0, 300, {"mae/test": 0.4375}),
    ]


def test_a_training_under_way_has_its_curve_and_a_second_call_adds_to_it(tmp_path):
    """Nothing stands twice, and what was there keeps its place, for a TensorBoard that reads on."""
    results, logdir = tmp_path / "results", tmp_path / "curves"
    path = logdir / "run" / tensorboard.FILE_NAME
    make_run(results / "run", "0,10,0.1,0.5,0.75,2.5", "1,20,0.1,0.2")
    assert tensorboard.write_curves(results, logdir) == 1
    before = path.read_bytes()
    assert [epoch for _, epoch, _ in curves(path)] == [0]
    assert tensorboard.write_curves(results, logdir) == 1
    assert path.read_bytes() == before
    make_run(results / "run", "0,10,0.1,0.5,0.75,2.5", "1,20,0.1,0.25,0.5,5")
    tensorboard.write_curves(results, logdir)
    assert [epoch for _, epoch, _ in curves(path)] == [0, 1]
    assert path.read_bytes().startswith(before)
    assert [file.name for file in path.parent.iterdir()] == [tensorboard.FILE_NAME]


def test_a_write_that_fails_leaves_the_earlier_file_whole(tmp_path, monkeypatch):
    make_run(tmp_path / "run", "0,10,0.1,0.5,0.75,2.5")
    path = tmp_path / "curves/run" / tensorboard.FILE_NAME
    tensorboard.write_curves(tmp_path, tmp_path / "curves")
    before = path.read_bytes()

    def fail(folder):
        yield tensorboard.Point(0.0, 0, {"mae/train": 0.5})
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorboard, "read_points", fail)
    with pytest.raises(OSError):
        tensorboard.write_curves(tmp_path, tmp_path / "curves")
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [tensorboard.FILE_NAME]


def test_tensorboards_own_reader_reads_it(tmp_path):
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    make_run(tmp_path / "run", "0,10,0.1,0.5,0.75,2.5", "1,20,0.1,0.25,0.5,5")
    tensorboard.write_curves(tmp_path, tmp_path / "curves")
    path = tmp_path / "curves/run" / tensorboard.FILE_NAME
    assert [event.step for event in loading.EventFileLoader(str(path)).Load()] == [0, 0, 1]


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_in_which_nothing_has_trained_is_a_users_mistake(is_there, tmp_path):
    if is_there:
        (tmp_path / "results").mkdir()
    with pytest.raises(UserError, match="results"):
        tensorboard.write_curves(tmp_path / "results", tmp_path / "curves")


def test_without_tensorboardx_one_sentence_says_how_to_install_it(tmp_path):
    make_run(tmp_path / "run", "0,10,0.1,0.5,0.75,2.5")
    done = run_without({"tensorboardX"}, "tensorboard", tmp_path)
    assert done.returncode == ExitStatus.USER_ERROR and done.stderr.count("\n") == 1
    assert "irnet_hpc[tensorboard]" in done.stderr
