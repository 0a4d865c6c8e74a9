"""Tests of processor quotas, on file trees like those of containers, pods and slices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.bench import cgroup, host

V2 = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 20 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
"""Lines of /proc/self/mountinfo."""
HALF = {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}
NONE = {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}


def _tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def _in(folder: str, files: Mapping[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            {
                "proc/self/mountinfo": V2,
                "proc/self/cgroup": "0::/a.slice/b.scope/c",
                "sys/fs/cgroup/a.slice/cpu.max": "50000 100000",
                "sys/fs/cgroup/a.slice/b.scope/cpu.max": "max 100000",
                "sys/fs/cgroup/a.slice/b.scope/c/cpu.max": "150000 100000",
            },
            0.5,
            id="version 2, on the grandparent",
        ),
        pytest.param(
            {
                "proc/self/mountinfo": V1,
                "proc/self/cgroup": "3:cpu,cpuacct:/kubepods/pod1/main\n0::/",
                **_in("sys/fs/cgroup/cpu,cpuacct/kubepods/pod1", HALF),
                **_in("sys/fs/cgroup/cpu,cpuacct/kubepods/pod1/main", NONE),
            },
            0.5,
            id="version 1, on the parent",
        ),
        pytest.param(
            {
                "proc/self/mountinfo": V1.replace("0:27 / ", "0:27 /docker/f00 "),
                "proc/self/cgroup": "3:cpu,cpuacct:/docker/f00/app",
                **_in("sys/fs/cgroup/cpu,cpuacct", HALF),
                **_in("sys/fs/cgroup/cpu,cpuacct/app", NONE),
            },
            0.5,
            id="the host's path, the container's own cgroup mounted",
        ),
        pytest.param(
            {
                "proc/self/mountinfo": V2.replace("0:26 / ", "0:26 /../../pod ").replace("/sys/fs/cgroup", "/cg\\040x"),
                "proc/self/cgroup": "0::/../elsewhere",
                "cg x/cpu.max": "25000 100000",
            },
            0.25,
            id="outside of its cgroup namespace, mounted elsewhere",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "50000 100000"}, 0.5, id="mounts not told"
        ),
        pytest.param(
            {"proc/self/mountinfo": V2, "proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "max 100000"},
            None,
            id="no quota",
        ),
        pytest.param({"proc/self/mountinfo": V2, "sys/fs/cgroup/cpu.max": "0 100000"}, None, id="no quota is 0"),
    ],
)
def test_the_lowest_quota_of_all_ancestors_holds(
    tmp_path: Path, files: Mapping[str, str], expected: float | None
) -> None:
    root = _tree(tmp_path, files)
    assert cgroup.quota(root) == expected
    assert host.usable_cpus(root) == (expected or host.usable_cpus(tmp_path / "elsewhere"))


def test_stops_of_every_ancestor_count(tmp_path: Path) -> None:
    files = {
        "proc/self/mountinfo": V2,
        "proc/self/cgroup": "0::/a/b",
        "sys/fs/cgroup/cpu.stat": "usage_usec 12",
        "sys/fs/cgroup/a/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_usec 5",
        "sys/fs/cgroup/a/b/cpu.stat": "nr_throttled 3",
    }
    assert cgroup.stops(_tree(tmp_path, files)) == 7
    assert cgroup.stops(tmp_path / "elsewhere") is None


@given(
    mountinfo=st.text("0123456789 :/-cgroup2pu,.\\\n", max_size=80),
    membership=st.text("0123456789:/.cpu,\n", max_size=60),
    limit=st.text("0123456789 max\n", max_size=20),
)
def test_no_content_of_these_files_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, mountinfo: str, membership: str, limit: str
) -> None:
    files = {"proc/self/mountinfo": V2 + mountinfo, "proc/self/cgroup": membership, "sys/fs/cgroup/cpu.max": limit}
    found = cgroup.quota(_tree(tmp_path_factory.mktemp("tree"), files))
    assert found is None or found > 0
