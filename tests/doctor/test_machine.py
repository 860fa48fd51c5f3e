import pytest

from irnet_hpc.doctor import machine
from irnet_hpc.doctor.checks import Level


def test_every_required_library_is_pinned_to_a_version_that_is_new_enough():
    required, pinned = machine.required_versions(), machine.pinned_versions()
    assert {"torch", "numpy", "submitit"} <= required.keys() <= pinned.keys()
    numbers = machine.version_numbers
    assert [name for name in required if numbers(pinned[name]) < numbers(required[name])] == []


@pytest.mark.parametrize(
    ("library", "version", "level"),
    [
        ("tqdm", "4.1.0", Level.FAILURE),
        ("tqdm", "99.0", Level.WARNING),
        ("torch", "2.11.0+cu126", Level.OK),
    ],
)
def test_versions_are_compared_with_the_installed_ones(
    tmp_path, monkeypatch, settings, library, version, level
):
    """Too old is a failure, untested a warning, and any torch that is new enough is fine."""
    metadata = tmp_path / f"{library}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {library}\nVersion: {version}\n"
    )
    # As if this machine had exactly the pinned versions.
    pinned = {name: machine.installed_version(name) for name in machine.required_versions()}
    monkeypatch.setattr(machine, "pinned_versions", lambda: pinned)
    assert machine.check_versions(settings).level == Level.OK
    monkeypatch.syspath_prepend(tmp_path)
    verdict = machine.check_versions(settings)
    assert (verdict.level, library in verdict.found, version in verdict.found) == (
        level,
        True,
        True,
    )
    assert verdict.facts["versions"][library] == version


def test_a_missing_library_is_a_failure_that_names_it(monkeypatch, settings):
    monkeypatch.setattr(machine, "required_versions", lambda: {"no-such-library": "1"})
    verdict = machine.check_versions(settings)
    assert verdict.level == Level.FAILURE and "no-such-library" in verdict.found


@pytest.mark.parametrize(
    ("value", "level"),
    [("1", "ok"), ("1,4", "ok"), ("0", "warning"), ("all", "warning"), ("9999", "warning")],
)
def test_a_number_of_threads_that_cannot_be_meant_is_a_warning(settings, value, level):
    assert machine.check_threads(settings, {"OMP_NUM_THREADS": value}).level == level
    assert machine.check_threads(settings, {}).level == Level.OK


def test_bf16_is_read_from_the_flags_of_the_processor(settings):
    with_bf16 = "model name : X\nflags\t: fpu avx512_bf16\n"
    assert "X computes in bf16" in machine.check_processor(settings, with_bf16).found
    arm = "Features\t: fp asimd bf16\n"
    assert machine.check_processor(settings, arm).level == Level.OK
    without = "model name : Y\nflags\t: fpu avx2\n"
    assert machine.check_processor(settings, without).level == Level.NOTE


@pytest.mark.parametrize(
    ("script", "level"),
    [
        ("echo 'NVIDIA H100 80GB HBM3, 9.0, 81559'", Level.OK),
        ("echo 'Tesla V100, 7.0, 16384'", Level.WARNING),
        (
            'echo "NVIDIA-SMI has failed because it couldn\'t communicate"; exit 9',
            Level.WARNING,
        ),
        ("echo 'No devices were found'; exit 6", Level.NOTE),
    ],
)
def test_gpus_are_those_that_nvidia_smi_lists(settings, put_on_path, script, level):
    put_on_path(**{"nvidia-smi": script})
    verdict = machine.check_gpu(settings)
    assert verdict.level == level
    if level == Level.OK:
        assert verdict.facts["gpus"] == [["NVIDIA H100 80GB HBM3", "9.0", "81559"]]
        assert "capability 9.0, 80 GiB" in verdict.found


@pytest.mark.parametrize("divided", [True, False])
def test_a_gpu_that_is_divided_is_named_as_such(settings, put_on_path, divided):
    instance = "  MIG 1g.18gb     Device  0: (UUID: MIG-5c4)" if divided else ""
    listed = f"echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'; echo '{instance}'"
    script = f"if [ $1 = -L ]; then {listed}; else echo 'NVIDIA H200, 9.0, 143771'; fi"
    put_on_path(**{"nvidia-smi": script})
    verdict = machine.check_gpu(settings)
    assert verdict.level == Level.OK and ("MIG" in verdict.found) == divided


def test_a_machine_without_nvidia_smi_gets_a_note(settings, put_on_path):
    put_on_path(alone=True)
    assert machine.check_gpu(settings).level == Level.NOTE
