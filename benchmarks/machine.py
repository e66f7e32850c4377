"""What the benchmark asks of the machine: cores, processor time, resident memory, a C compiler."""

import os
import platform
import resource
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent

SERVER_CORE, READER_CORE = 0, 1
"""The server has a core of its own. All that reads and appends shares the other."""


def describe() -> str:
    """Return one line about this machine and what runs on it."""
    names = ("uvloop", "uvicorn", "redis")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"{_processor()}, {os.cpu_count()} cores, {_memory() >> 30} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}, {packages}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check() -> None:
    """Exit with one sentence where nothing can be measured."""
    if not Path("/proc/self/schedstat").exists():
        raise SystemExit("expected Linux with /proc, by which processes are measured")
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("expected two cores: one for the server, one for its subscribers")


def allow_files(count: int) -> None:
    """Let this process and its children open so many files, or exit with one sentence."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise SystemExit(f"expected a limit of {count} open files but got {hard}: ulimit -Hn")
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def compiled(name: str, directory: Path) -> Path:
    """Compile `<name>.c` into a directory and return the program."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("expected a C compiler: apt-get install gcc libc6-dev")
    program = directory / name
    subprocess.run(
        [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, HERE / f"{name}.c"],
        check=True,
    )
    return program


def pin(pid: int, core: int) -> None:
    """Keep every thread of a process on one core."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {core})


def children(pid: int) -> list[int]:
    """Return the processes that a process started and that still run."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def cpu_seconds(pid: int) -> float:
    """Return the processor time that all threads of a process have used, user and system."""
    stats = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(stat.read_text().split()[0]) for stat in stats) / 1e9


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that is in RAM."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
