"""One variant in a process of its own, on an emulated board or natively: an answer, or how it died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Literal

from edgecnn.documents import parse, sha256_of, write_atomically
from edgecnn.ending import bound
from edgecnn.holding import temporary_folder
from edgecnn.processor import CAPS
from edgecnn.rehearse.boards import Board, write_system_files
from edgecnn.rehearse.instructions import Log, count, kind_of
from edgecnn.rehearse.job import IMAGE_DONE, PHASES, USER_ERROR, Answer, Job
from edgecnn.rehearse.userland import Userland

Failure = Literal["crashed", "timed out", "refused"]
LOG = "log"
"""The emulator's log, in the folder of the run."""
_OF_THIS_PROCESSOR = {
    *("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES"),
    *("MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "BLIS_ARCH_TYPE"),
    *CAPS,
}
"""Variables that choose instructions: what suits this machine kills an emulated older one."""
ImagesDone = Callable[[int], None]
"""Called with the number of images done."""


@dataclass(frozen=True)
class Ran:
    """A process that has ended."""

    answer: Answer | None
    failure: Failure | None
    reason: str | None
    instructions: Mapping[str, int]
    """Different instructions of each kind that one image executed in the engine's code; empty where not looked at."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int | None
    """Exit code, or minus the number of the signal; None: it was stopped, for it took too long."""
    lines: Sequence[str]
    """The job's own lines on stdout."""
    stderr: str
    log: Log


@dataclass(frozen=True)
class Machine:
    """An emulated board with its userland, an emulated processor with this machine's system, or this machine."""

    command: tuple[str, ...]
    """What comes before Python's own arguments."""
    environment: Mapping[str, str]
    log_option: tuple[str, ...]
    """Of an Arm emulator, in front of the path of its log; empty: no log is kept."""


def emulated(board: Board, userland: Userland, wheels: Sequence[Path], cache: Path, folder: Path) -> Machine:
    """The board. `folder` is empty, and is filled with its system files."""
    root = folder / "root"
    write_system_files(board, root)
    for entry in userland.root.iterdir():
        (root / entry.name).symlink_to(entry)
    usr = userland.root / "usr"
    guest = {
        "PYTHONHOME": usr,
        "PYTHONPATH": os.pathsep.join(map(str, (_package_alone(cache), *wheels))),
        "PYTHONPYCACHEPREFIX": cache / f"pycache-{userland.release.python}",
        "PYTHONUTF8": "1",
        "LD_LIBRARY_PATH": f"{usr / 'lib/aarch64-linux-gnu'}:{userland.root / 'lib/aarch64-linux-gnu'}",
        "HOME": folder,
        "TMPDIR": folder,
        **_threads(1),
    }
    emulator = (str(userland.qemu), "-cpu", board.cpu, "-L", str(root))
    variables = (word for name, value in guest.items() for word in ("-E", f"{name}={value}"))
    python = str(usr / "bin" / f"python{userland.release.python}")
    return Machine((*emulator, *variables, python), {"PATH": "/usr/bin:/bin"}, ("-d", "in_asm", "-D"))


def _package_alone(cache: Path) -> Path:
    """A folder that holds a link to this package only: its own parent may be a site-packages full of x86 libraries.

    The same one each time, so that what the emulated Python compiled is found again.
    """
    package = Path(__file__).resolve().parents[1]
    folder = cache / "package" / sha256_of(str(package).encode())[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (folder / package.name).symlink_to(package)
    return folder


def emulated_here(cpu: str, qemu: Path) -> Machine:
    """An x86-64 processor that runs this very Python environment. `cpu`: qemu's model."""
    here = native()
    # The emulated interpreter does not always find the virtual environment that it is started from.
    folders = [here.environment.get("PYTHONPATH"), *{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}]
    kept = {name: value for name, value in here.environment.items() if name not in _OF_THIS_PROCESSOR}
    environment = {**kept, "PYTHONPATH": os.pathsep.join(folder for folder in folders if folder)}
    return Machine((str(qemu), "-cpu", cpu, *here.command), environment, ())


def native(held_by: Mapping[str, str] = MappingProxyType({})) -> Machine:
    """This machine, with this very edgecnn importable. `held_by`: variables that hold its engines back."""
    environment = {**os.environ, **_threads(1), **held_by}
    package = str(Path(__file__).resolve().parents[2])
    if package not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        inherited = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = package + (os.pathsep + inherited if inherited else "")
    return Machine((sys.executable,), environment, ())


def run(machine: Machine, job: Job, timeout_s: float, progress: ImagesDone | None = None) -> Ran:
    """Run the job. Every way of dying is an answer too, so that the other variants go on."""
    with temporary_folder("rehearse") as folder:
        log_path = str(folder / LOG) if machine.log_option else None
        told = job.model_copy(update={"out": str(folder / "answer.json"), "log": log_path})
        write_atomically(folder / "job.json", told.model_dump_json())
        arguments = ["-P", "-m", "edgecnn.rehearse.inside", str(folder / "job.json")]
        ended = execute(machine, arguments, folder, timeout_s, progress)
        if ended.code == 0:
            answer = parse(Answer, Path(told.out).read_bytes(), "the rehearsed process's answer")
            return Ran(answer, None, None, count(ended.log.between, answer.engine_code))
        failure, reason = death(ended, timeout_s)
        where = "" if failure == "refused" else f", {_place(ended.lines, len(job.images))}"
        return Ran(None, failure, reason + where, {})


def execute(
    machine: Machine, arguments: Sequence[str], folder: Path, timeout_s: float, progress: ImagesDone | None = None
) -> Ended:
    """Run Python there with these arguments, in `folder`, to its end or for so long."""
    log = Log()
    command = [*machine.command, *arguments]
    if not machine.log_option:
        return Ended(*_watch(command, machine.environment, folder, timeout_s, progress), log)
    command[1:1] = [*machine.log_option, str(folder / LOG)]
    with _read_while_written(folder / LOG, log):
        ended = _watch(command, machine.environment, folder, timeout_s, progress)
    return Ended(*ended, log)


def death(ended: Ended, timeout_s: float) -> tuple[Failure, str]:
    """Why a process ended without an answer."""
    if ended.code is None:
        return "timed out", f"no end after {timeout_s:.0f} s in the emulator"
    said = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    said = [line for line in said if not line.startswith("qemu: uncaught")]
    last = said[-1] if said else "it left no message"
    if ended.code == USER_ERROR:
        return "refused", last
    if ended.code >= 0:
        return "crashed", f"exit code {ended.code}: {last}"
    number = -ended.code
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if name == "SIGILL":
        word = ended.log.last
        shown = "" if word is None else f" ({kind_of(word) or 'instruction'} {word:#010x})"
        return "crashed", f"SIGILL: the engine executes an instruction that this processor lacks{shown}"
    if name == "SIGKILL":
        return "crashed", "SIGKILL: killed from outside, most often for lack of memory on this machine"
    return "crashed", f"{name}: {last}"


def _threads(count: int) -> dict[str, str]:
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(count))


@contextmanager
def _read_while_written(path: Path, log: Log) -> Iterator[None]:
    """A pipe with a name, read by a thread: the log of one process is 50 to 100 MB, of which little matters."""
    os.mkfifo(path)
    # Held open for reading and writing, so that neither side waits for the other, also where the process never starts.
    keeper = os.open(path, os.O_RDWR)
    stream = path.open("rb", buffering=0)
    reader = threading.Thread(target=log.read, args=(stream,))
    reader.start()
    try:
        yield
    finally:
        os.close(keeper)
        reader.join()
        stream.close()


def _watch(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    timeout_s: float,
    progress: ImagesDone | None,
) -> tuple[int | None, list[str], str]:
    """Run to the end: (exit code, or None where it was too long; the job's lines on stdout; stderr)."""
    done: list[str] = []
    with (folder / "stderr").open("w+b") as stderr:
        process = subprocess.Popen(
            bound(command),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        reader = threading.Thread(target=_follow, args=(process.stdout, done, progress))
        reader.start()
        try:
            code: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            process.kill()
            process.wait()
            reader.join()
        stderr.seek(0)
        return code, done, stderr.read().decode(errors="replace")


def _follow(stream: IO[bytes], done: list[str], progress: ImagesDone | None) -> None:
    with stream:
        for line in stream:
            # An engine may have printed something without a line's end before it.
            found = [known for known in (*PHASES, IMAGE_DONE) if known in line.decode(errors="replace")]
            done += found
            if IMAGE_DONE in found and progress:
                progress(done.count(IMAGE_DONE))


def _place(done: Sequence[str], images: int) -> str:
    """Where a process was when it ended."""
    if PHASES[0] not in done:
        return "while the images were being prepared"
    if PHASES[1] not in done:
        return "while the model was being opened"
    finished = done.count(IMAGE_DONE)
    return f"at image {finished + 1} of {images}" if finished < images else "after the last image"
