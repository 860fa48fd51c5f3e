"""The commands as a whole: their list, their help, completion of them, and curves for TensorBoard."""

import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from irnet_hpc import completion, tensorboard
from irnet_hpc.__main__ import COMMANDS, listing, main
from irnet_hpc.errors import UserError
from irnet_hpc.files import write_json
from irnet_hpc.sweep.matrix.sites import read_site
from tests.test_layout import COMMANDS as FOLDERS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def parsers():
    return completion.parsers()


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "irnet_hpc", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


# ------------------------------------------------------------------------------------------------------------- the list


def test_the_list_has_every_command_and_an_example_of_each():
    assert set(COMMANDS) == {*FOLDERS, "tensorboard", "completion"}
    for name, command in COMMANDS.items():
        assert f"python -m irnet_hpc.{name} {command.example}" in listing()


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_is_one_that_its_command_takes(name, parsers):
    parsers[name].parse_args(shlex.split(COMMANDS[name].example))
    named = re.findall(r"jobs/\S+", COMMANDS[name].example)
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_at_least_three_calls_of_its_command(name, parsers):
    calls = re.findall(
        rf"^ *(?:.*[|] |horovodrun .*|mpirun .*)?python -m irnet_hpc\.{name}\b",
        parsers[name].description,
        re.M,
    )
    assert len(calls) >= 3


def test_the_list_needs_nothing_but_python():
    program = "import sys, irnet_hpc.__main__; print(sorted({'numpy', 'yaml', 'torch', 'h5py'} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_command_is_started_in_place_of_the_list_with_its_own_status():
    done = run("pack", "--source", "oqdm")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown source 'oqdm' (did you mean 'oqmd'?)")
    assert run("pack", "--help").stdout.startswith("usage: python -m irnet_hpc.pack")


NUMBER_OF_A_FILE = """
import sys
from irnet_hpc.console import exit_status
sys.exit(exit_status(lambda: print("said") or open(sys.argv[1], "w").fileno()))
"""


def test_a_command_that_is_started_without_standard_streams_gives_their_numbers_to_no_file(
    tmp_path,
):
    """Its exit status is the number of the first file that it opens: after 0, 1 and 2, to which libraries write."""
    command = [sys.executable, "-c", NUMBER_OF_A_FILE, str(tmp_path / "file")]
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], cwd=ROOT, timeout=600
    )
    assert closed.returncode == 3 and (tmp_path / "file").read_text() == ""


def test_a_command_that_does_not_exist_is_one_sentence():
    with pytest.raises(
        UserError, match=r"unknown command 'trian' \(did you mean 'train'\?\); known: aggregate, "
    ):
        main(["trian"])


# ----------------------------------------------------------------------------------------------------------- completion


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    pytest.importorskip("shtab")
    path = tmp_path_factory.mktemp("completion") / "irnet_hpc"
    done = run("completion", "bash")
    assert done.returncode == 0, done.stderr
    path.write_text(done.stdout)
    return path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tr", {"train"}),
        ("train --archi", {"--architecture"}),
        ("train --architecture ir", {"irnet"}),
        ("train --architecture ran", {"random_forest"}),
        ("pack --source j", {"jarvis"}),
        ("train --property band", {"band_gap", "band_gap_mbj"}),
        ("sweep st", {"status"}),
        ("sweep status --wa", {"--watch"}),
        ("completion z", {"zsh"}),
    ],
)
def test_bash_completes_commands_options_and_what_they_choose_from(script, typed, offered):
    words = ["irnet_hpc", *typed.split(" ")]
    program = f"""
source {shlex.quote(str(script))}
COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(" ".join(words))}
$(complete -p irnet_hpc | sed 's/.*-F \\([^ ]*\\) .*/\\1/') irnet_hpc {words[-1]} {words[-2]}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=600)
    assert {word.strip() for word in done.stdout.splitlines()} == offered, done.stderr


# ---------------------------------------------------------------------------------------------------------- TensorBoard


def test_the_checksum_is_that_of_rfc_3720():
    assert tensorboard.crc32c(bytes(32)) == 0x8A9136AA  # B.4, 32 bytes of zeroes
    assert tensorboard.crc32c(bytes(range(32))) == 0x46DD794E  # 32 bytes of incrementing 00..1f
    assert tensorboard.crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


def message_type():
    """tensorflow.Event by google's own protobuf, of the fields that are used."""
    protobuf = pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    assert protobuf
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="tensorflow")
    fields = {
        "Value": [("tag", 1, kind.TYPE_STRING, 1), ("simple_value", 2, kind.TYPE_FLOAT, 1)],
        "Summary": [("value", 1, ".tensorflow.Value", 3)],
        "Event": [
            ("wall_time", 1, kind.TYPE_DOUBLE, 1),
            ("step", 2, kind.TYPE_INT64, 1),
            ("file_version", 3, kind.TYPE_STRING, 1),
            ("summary", 5, ".tensorflow.Summary", 1),
        ],
    }
    for name, of in fields.items():
        message = file.message_type.add(name=name)
        for field, number, what, label in of:
            typed = (
                {"type_name": what, "type": kind.TYPE_MESSAGE}
                if isinstance(what, str)
                else {"type": what}
            )
            message.field.add(name=field, number=number, label=label, **typed)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Event"))


def read_events(path: Path) -> list:
    """Records -> messages, by protobuf; lengths and checksums checked."""
    event, data, found = message_type(), path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        message, end = data[12 : 12 + length], 16 + length
        for checked, at in ((data[:8], 8), (message, 12 + length)):
            crc = tensorboard.crc32c(checked)
            rotated = (crc >> 15) | ((crc << 17) & 0xFFFFFFFF)
            assert struct.unpack("<I", data[at : at + 4])[0] == (rotated + 0xA282EAD8) % 2**32
        found.append(event.FromString(message))
        data = data[end:]
    return found


def history_of(folder: Path, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "history.csv").write_text(
        "\n".join(["epoch,step,lr,train_mae,val_mae,seconds", *lines]) + "\n"
    )
    return folder


def write_curves(*arguments: object) -> subprocess.CompletedProcess:
    return run("tensorboard", *map(str, arguments))


def test_an_event_file_holds_the_history_and_the_test_mae(tmp_path):
    folder = history_of(
        tmp_path / "pack/band_gap/irnet-17",
        "0,100,0.001,0.5,0.75,2.5",
        "300,30100,0.0005,0.25,0.375,700",
    )
    write_json(folder / "run.json", {"attempts": [{"started": "2026-11-25T12:00:00+00:00"}]})
    write_json(folder / "result.json", {"test_mae": 0.4375, "wall_time_s": 701.0})
    done = write_curves(tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "tensorboard/pack/band_gap/irnet-17" / tensorboard.NAME
    first, *rest = read_events(path)
    assert first.file_version == "brain.Event:2"
    began = 1795608000.0  # date -d 2026-11-25T12:00:00Z +%s
    curves = [
        (
            one.wall_time - began,
            one.step,
            {value.tag: value.simple_value for value in one.summary.value},
        )
        for one in rest
    ]
    float32 = struct.unpack("<2f", struct.pack("<2f", 0.001, 0.0005))
    assert curves == [
        (2.5, 0, {"mae/train": 0.5, "mae/selection": 0.75, "learning_rate": float32[0]}),
        (700.0, 300, {"mae/train": 0.25, "mae/selection": 0.375, "learning_rate": float32[1]}),
        (701.0, 300, {"mae/test": 0.4375}),
    ]
    assert "curves of 1 run below" in done.stdout
    assert f"next: tensorboard --logdir {tmp_path / 'tensorboard'}" in done.stdout


def test_a_training_that_is_at_work_has_the_curve_so_far(tmp_path):
    history_of(tmp_path / "run", "0,10,0.1,0.5,0.75,2.5", "1,20,0.1,0.2")
    assert write_curves(tmp_path, "--logdir", tmp_path / "curves").returncode == 0
    assert [one.step for one in read_events(tmp_path / "curves/run" / tensorboard.NAME)[1:]] == [0]


def test_tensorboard_itself_reads_it(tmp_path):
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    history_of(tmp_path / "run", "0,10,0.1,0.5,0.75,2.5", "1,20,0.1,0.25,0.5,5")
    assert write_curves(tmp_path).returncode == 0
    loaded = list(
        loading.EventFileLoader(str(tmp_path / "tensorboard/run" / tensorboard.NAME)).Load()
    )
    assert [event.step for event in loaded] == [0, 0, 1]


@pytest.mark.parametrize(
    ("make", "said"), [(False, "is not a folder"), (True, "no history.csv below")]
)
def test_where_nothing_has_trained_is_one_sentence(make, said, tmp_path):
    if make:
        (tmp_path / "results").mkdir()
    done = write_curves(tmp_path / "results")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


# ---------------------------------------------------------------------------------------------------------------- sites


@pytest.mark.parametrize(
    "path", sorted((ROOT / "env/sites").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_site_that_is_shipped_can_be_read_and_says_whether_it_was_run(path):
    assert read_site(str(path)).partition
    comment = " ".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert "Run: " in comment or "Not run" in comment
    shell = path.with_suffix(".sh")
    assert subprocess.run(["bash", "-n", shell], capture_output=True, text=True).stderr == ""
