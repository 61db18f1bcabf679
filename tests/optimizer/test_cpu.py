"""Usable cores: affinity and cgroup quotas, on made-up file systems."""

from __future__ import annotations

import pytest
from tfopt_optimizer import cpu


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 16),
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "250000 100000\n"}, 3),  # 2.5 cores: use what was paid for
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "max 100000\n"}, 16),
        (  # the tightest of the group and its parents
            {
                "proc/self/cgroup": "0::/pod/app\n",
                "cgroup/pod/cpu.max": "400000 100000\n",
                "cgroup/pod/app/cpu.max": "800000 100000\n",
            },
            4,
        ),
        (  # inside a container the path in /proc may not exist below the mount
            {"proc/self/cgroup": "0::/host/path\n", "cgroup/cpu.max": "300000 100000\n"},
            3,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n",
                "cgroup/cpu/docker/abc/cpu.cfs_quota_us": "200000\n",
                "cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            16,
        ),
    ],
)
def test_affinity_cut_by_the_tightest_quota(tmp_path, files, cores):
    write(tmp_path, files)
    assert cpu.usable_cores(tmp_path / "cgroup", tmp_path / "proc", affinity=16) == cores


def test_affinity_below_the_quota_wins(tmp_path):
    write(tmp_path, {"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "800000 100000\n"})
    assert cpu.usable_cores(tmp_path / "cgroup", tmp_path / "proc", affinity=2) == 2


def test_the_processor_is_named_with_its_instruction_set(tmp_path):
    write(tmp_path, {"proc/cpuinfo": "processor\t: 0\nmodel name\t: Foo 9\nflags\t\t: avx2 fma\n\nmodel name\t: Bar\n"})
    assert cpu.processor(tmp_path / "proc") == {"model": "Foo 9", "isa": "avx2 fma"}
