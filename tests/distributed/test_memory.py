from irnet_hpc.distributed.memory import cgroup_limits


def test_the_smallest_limit_of_all_levels_of_control_groups_applies(tmp_path):
    second = tmp_path / "two" / "job" / "step"
    second.mkdir(parents=True)
    (second / "cpu.max").write_text("max 100000\n")
    (second.parent / "cpu.max").write_text("150000 100000\n")
    (second / "memory.max").write_text("3000000000\n")
    (second.parent / "memory.max").write_text("2000000000\n")
    assert cgroup_limits("0::/job/step\n", tmp_path / "two") == (1.5, 2.0)
    first = tmp_path / "one"
    for controller, file, text in (
        ("cpu,cpuacct", "cpu.cfs_quota_us", "50000"),
        ("cpu,cpuacct", "cpu.cfs_period_us", "100000"),
        ("memory", "memory.limit_in_bytes", "4000000000"),
    ):
        (first / controller).mkdir(parents=True, exist_ok=True)
        (first / controller / file).write_text(text)
    # In a container the path is not visible.
    membership = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n"
    assert cgroup_limits(membership, first) == (0.5, 4.0)
    assert cgroup_limits("0::/\n", tmp_path) == (None, None)
