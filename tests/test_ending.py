"""Tests of processes that end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgecnn.ending import bound

ORPHAN = """
import subprocess, sys
held = int(sys.argv[2])
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True, pass_fds=[held])
print(child.stdout.readline().strip(), flush=True)
child.wait()
"""
MEASURING = """
import os, time
from edgecnn.ending import end_with
end_with(os.getppid())
print("measuring", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of another system does not tell of a parent's end")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_child_ends_with_its_parent(number: int) -> None:
    """However that ends: the pipe that both held has nobody at its other end."""
    gone, held = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, MEASURING, str(held)], stdout=subprocess.PIPE, pass_fds=[held], text=True
    )
    os.close(held)
    assert parent.stdout is not None
    assert parent.stdout.readline().strip() == "measuring"
    parent.send_signal(number)
    parent.communicate()
    assert os.read(gone, 1) == b""
    os.close(gone)


@pytest.mark.skipif(sys.platform != "linux", reason="as above")
def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    code = "from edgecnn.ending import end_with\nend_with(1)\nprint('still here')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


PROGRAM = """
import subprocess, sys
from edgecnn.ending import bound
command = bound(["sh", "-c", "echo measuring; exec sleep 600"])
child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=[int(sys.argv[2])])
print(child.stdout.readline().strip(), flush=True)
child.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="as above")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_that_is_not_ours_ends_with_its_parent_too(number: int) -> None:
    gone, kept = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "", str(kept)], stdout=subprocess.PIPE, pass_fds=[kept], text=True
    )
    os.close(kept)
    assert parent.stdout is not None
    assert parent.stdout.readline().strip() == "measuring"
    parent.send_signal(number)
    parent.communicate()
    assert os.read(gone, 1) == b""
    os.close(gone)


def test_a_bound_program_is_the_program() -> None:
    done = subprocess.run(bound(["sh", "-c", "echo $0 $1; exit 7", "one", "two words"]), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "one two words\n")


def test_a_bound_program_that_is_not_there_is_named() -> None:
    done = subprocess.run(bound(["no-such-program"]), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "no-such-program: No such file or directory\n")


IN_ORDER = """
import sys, tempfile, time
from pathlib import Path
from edgecnn.ending import end_in_order
from edgecnn.holding import held
end_in_order()
with held(Path(sys.argv[1])), tempfile.TemporaryDirectory(dir=Path(sys.argv[1]).parent):
    print("busy", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_asked_to_end_clears_up(tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", IN_ORDER, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As under nohup."""
    code = (
        "import os, signal; from edgecnn.ending import end_in_order; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "end_in_order(); os.kill(os.getpid(), signal.SIGHUP); print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "still here\n")
