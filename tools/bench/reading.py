"""Reading: shuffled batches of 512 rows as numpy arrays, ours against the loaders people use; same rows, one machine.

Every loader runs in processes of its own: one writes its format (not timed), one reads it, pinned to `--cores`. Printed
are rows and non-zeros per second of the first epoch and of later ones (median), bytes per second, and peak anonymous
memory. Start-up and imports are not counted; a later pass proves that every loader delivers the same multiset of rows,
and a difference ends with exit code 1. A package that is not installed is reported as missing; one that fails or takes
longer than `--timeout` is reported, too. `--cold` drops a loader's files from the page cache first, where the system
lets it. `--capped` reads more data than memory, in a control group where one can be made.

    make bench-reading
    python tools/bench/reading.py --rows 1000000 --only shardtrain --only np.memmap
    python tools/bench/reading.py --only shardtrain --capped 1GiB --rows 8000000
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reading_loaders import LOADERS, MISSING, NOT_COMPARED, Loader

from shardtrain.options import parse_size
from shardtrain.runtime.memory import anonymous_bytes

TOKENS = 256
NONZEROS = (20, 100)  # a row, both ends included: 60 on average
FEATURES = 20_000
SCRIPT = str(Path(__file__).with_name("reading_loaders.py"))


@dataclass(frozen=True)
class Result:
    """What a loader did; `problem` is why it did not."""

    loader: type[Loader]
    problem: str = ""
    rows: int = 0
    nonzeros: int = 0
    seconds: tuple[float, ...] = ()
    digest: str = ""
    peak_bytes: int = 0
    version: str = ""


def main() -> int:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, metavar="N", help="of each kind (200,000)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="the loader called TEXT, or all whose name holds it (all)",
    )
    parser.add_argument("--kind", choices=("sequence", "sparse"), action="append", help="which rows (both)")
    parser.add_argument("--cores", type=int, default=1, metavar="N", help="that a loader may use (1)")
    parser.add_argument(
        "--timeout", type=float, default=300, metavar="S", help="of a loader, for each of its steps (300)"
    )
    parser.add_argument(
        "--pairs", type=int, default=15, metavar="N", help="of first epochs with and without verifying (15)"
    )
    parser.add_argument("--cold", action="store_true", help="also the first epoch with the files not in the page cache")
    parser.add_argument("--capped", metavar="SIZE", help="also an epoch of ours and of np.memmap in SIZE of memory")
    parser.add_argument(
        "--environments", type=Path, metavar="DIR", help="a virtual environment a package (this Python)"
    )
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where the data goes (a temporary folder)")
    args = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=args.scratch) as scratch:
        same = [compare(kind, Path(scratch), args) for kind in args.kind or ("sequence", "sparse")]
    return 0 if all(same) else 1


def print_machine() -> None:
    """One line about the machine and the versions."""
    import platform
    from importlib.metadata import version

    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "h5py", "tensorflow"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}")


def compare(kind: str, scratch: Path, args: argparse.Namespace) -> bool:
    """All loaders of one kind of rows; whether those that ran delivered equal rows."""
    source = scratch / kind
    size = make_rows(source, kind, args.rows)
    expected = digest_of(source)
    print(f"\n{args.rows:,} {kind} rows, {size / 1e6:,.0f} MB, batches of 512, {args.cores} core(s) for each loader")
    print(f"  {'':<48}{'epoch 1':>10}{'later':>10}{'later':>9}{'later':>10}{'peak':>7}")
    print(f"  {'':<48}{'M rows/s':>10}{'M rows/s':>10}{'MB/s':>9}{'M nnz/s':>10}{'MB':>7}")
    equal = True
    results: list[Result] = []
    for loader in LOADERS.values():
        if loader.kind != kind or not any(is_meant(loader, text) for text in args.only or [""]):
            continue
        folder = scratch / f"{kind}-{len(results)}"
        result = measure(loader, source, folder, args)
        results.append(result)
        different = not result.problem and result.digest != expected
        equal &= not different
        print_result(result, size, "  DIFFERENT ROWS" if different else "")
        if loader.name.endswith("shardtrain window") and args.pairs and not result.problem:
            print_verifying(loader, folder, args)
        if args.cold and not result.problem:
            print_cold(loader, folder, result, size, args)
        if args.capped and not result.problem and ("shardtrain" in loader.name or "memmap" in loader.name):
            print_capped(loader, folder, size, args)
        for path in sorted(folder.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    for name, reason in NOT_COMPARED.items() if kind == "sparse" else ():
        print(f"  {name:<48}  not compared: {reason}")
    print_ratios(results)
    print(f"  rows: {'equal, all loaders that ran' if equal else 'DIFFERENT'}")
    return equal


def make_rows(folder: Path, kind: str, count: int) -> int:
    """Rows as .npy files; their bytes."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    arrays: dict[str, Any] = {"y": rng.integers(0, 14, count, np.uint8)}
    if kind == "sequence":
        arrays["x"] = np.lib.format.open_memmap(folder / "x.npy", "w+", np.uint16, (count, TOKENS))
        for start in range(0, count, 1 << 16):
            block = arrays["x"][start : start + (1 << 16)]
            block[:] = rng.integers(1, FEATURES, block.shape, np.uint16)
    else:
        lengths = rng.integers(NONZEROS[0], NONZEROS[1] + 1, count)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        step = FEATURES // NONZEROS[1]  # columns ascend within a row
        places = np.arange(indptr[-1]) - np.repeat(indptr[:-1], lengths)
        arrays["indices"] = (places * step + rng.integers(0, step, indptr[-1])).astype(np.int32)
        arrays["data"] = rng.random(indptr[-1], np.float32)
        arrays |= {"indptr": indptr.astype(np.int32), "shape": np.array([count, FEATURES])}
    for name, array in arrays.items():
        if not (folder / f"{name}.npy").exists():
            np.save(folder / f"{name}.npy", array)
    return sum(array.nbytes for array in arrays.values())


def digest_of(source: Path) -> str:
    """What `reading_loaders.read` has to find, computed from the arrays themselves."""
    from reading_loaders import arrays, digest

    found = arrays(source)
    weights = np.random.default_rng(7).integers(0, 1 << 63, 1 << 16, np.uint64)
    total, count = 0, len(found["y"])
    for start in range(0, count, 1 << 14):
        stop = min(start + (1 << 14), count)
        x: Any
        if "x" in found:
            x = found["x"][start:stop]
        else:
            pointers = found["indptr"][start : stop + 1].astype(np.int64)
            span = slice(int(pointers[0]), int(pointers[-1]))
            x = (found["data"][span], found["indices"][span], pointers - pointers[0])
        total = (total + digest(x, found["y"][start:stop], weights)) % (1 << 64)
    return f"{count}:{total:016x}"


def measure(loader: type[Loader], source: Path, folder: Path, args: argparse.Namespace) -> Result:
    """Prepare and read in processes of their own."""
    folder.mkdir()
    problem, _, _ = run(python_of(loader, args.environments), ["prepare", loader.name, str(source), str(folder)], args)
    if problem:
        return Result(loader, problem)
    return run_read(loader, folder, args, [])


def run_read(loader: type[Loader], folder: Path, args: argparse.Namespace, more: list[str], group: str = "") -> Result:
    """Read once, in a control group if one is named."""
    command = ["read", loader.name, str(folder), "--cores", str(args.cores), *more]
    problem, output, peak = run(python_of(loader, args.environments), command, args, group)
    if problem:
        return Result(loader, problem)
    found = json.loads(output.splitlines()[-1])
    return Result(
        loader, "", found["rows"], found["nonzeros"], tuple(found["seconds"]), found["digest"], peak, found["version"]
    )


def python_of(loader: type[Loader], environments: Path | None) -> str:
    """The interpreter that has a loader's package."""
    own = environments / loader.package / "bin" / "python" if environments and loader.package else None
    return str(own) if own and own.exists() else sys.executable


def run(python: str, command: list[str], args: argparse.Namespace, group: str = "") -> tuple[str, str, int]:
    """Run the loaders' script: why it failed or an empty text, its output, and its peak anonymous bytes."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    started = time.monotonic()
    process = subprocess.Popen(
        [python, SCRIPT, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    if group:
        Path(group, "cgroup.procs").write_text(str(process.pid))
    texts: list[str] = ["", ""]
    readers = [
        threading.Thread(target=lambda i=i, pipe=pipe: texts.__setitem__(i, pipe.read()))
        for i, pipe in enumerate((process.stdout, process.stderr))
    ]
    for reader in readers:
        reader.start()
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        if time.monotonic() - started > args.timeout:
            os.killpg(process.pid, 9)  # the group that was started for it: loaders start processes of their own
            process.wait()
            return f"did not finish in {args.timeout:.0f} s", "", peak
        time.sleep(0.02)
    for reader in readers:
        reader.join()
    lines = [line for line in texts[1].splitlines() if line.strip()] or ["no message"]
    if process.returncode == MISSING:
        return f"missing: {lines[-1]}", "", peak
    if process.returncode:
        return f"failed: {lines[-1][:200]}", "", peak
    return "", texts[0], peak


def print_result(result: Result, size: int, remark: str = "") -> None:
    """One line."""
    name = result.loader.name
    if result.problem:
        print(f"  {name:<48}  {result.problem}", flush=True)
        return
    name = f"{name} {result.version}".rstrip()
    first, later = result.seconds[0], statistics.median(result.seconds[1:])
    nonzeros = f"{result.nonzeros / later / 1e6:>10,.0f}" if result.nonzeros else f"{'':>10}"
    print(
        f"  {name:<48}{result.rows / first / 1e6:>10.3f}{result.rows / later / 1e6:>10.3f}{size / later / 1e6:>9,.0f}"
        f"{nonzeros}{result.peak_bytes / 1e6:>7,.0f}{remark}",
        flush=True,
    )


def print_ratios(results: list[Result]) -> None:
    """Ours against the best peer that shuffles rows, np.memmap and scipy."""
    rates = {
        result.loader.name: result.rows / statistics.median(result.seconds[1:])
        for result in results
        if not result.problem
    }
    ours = next((rate for name, rate in rates.items() if name.endswith("shardtrain window")), None)
    targets = ("TFRecord", "Hugging Face", "litdata", "mosaicml")
    peers = {name: rate for name, rate in rates.items() if any(text in name for text in targets)}
    if ours and peers:
        best = max(peers, key=lambda name: peers[name])
        print(f"  ratio: window is {ours / peers[best]:.1f} times as fast as the best shuffling peer, {best}")
    for mine, other in (
        ("shardtrain window", "np.memmap blocks shuffled"),
        ("shardtrain none", "np.memmap in order"),
        ("sparse shardtrain window", "sparse scipy in memory, global shuffle"),
        ("sparse shardtrain blocks", "sparse shardtrain window"),
    ):
        if mine in rates and other in rates:
            print(f"  ratio: {mine} reaches {rates[mine] / rates[other]:.2f} of {other}")


def is_meant(loader: type[Loader], text: str) -> bool:
    """Whether a loader is the one called `text`, or, where none is, has it in its name."""
    return loader.name == text if text in LOADERS else text in loader.name


def drop_cache(folder: Path) -> bool:
    """Ask the kernel to forget the pages of all files in a folder; whether it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
    return True


def disk_seconds(folder: Path) -> float:
    """Seconds to read all files of a folder from the disk, front to back in pieces of 8 MiB: the better of two ways.

    They are through the page cache and, where the file system lets it, past it.
    """
    return min(_read_all(folder, direct) for direct in (0, getattr(os, "O_DIRECT", 0)))


def _read_all(folder: Path, flags: int) -> float:
    drop_cache(folder)
    buffer = mmap.mmap(-1, 1 << 23)  # begins where a page does
    buffer.write(bytes(len(buffer)))
    began = time.perf_counter()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            try:
                file = open(path, "rb", buffering=0, opener=lambda name, mode: os.open(name, mode | flags))  # noqa: SIM115
            except OSError:  # no such way here
                return float("inf")
            with file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                while file.readinto(buffer) == len(buffer):
                    pass
    return time.perf_counter() - began


def print_cold(loader: type[Loader], folder: Path, warm: Result, size: int, args: argparse.Namespace) -> None:
    """The first epoch without the page cache, and what the disk alone takes."""
    if not drop_cache(folder):
        print("    cold: the page cache cannot be dropped here")
        return
    disk = disk_seconds(folder)
    drop_cache(folder)
    result = run_read(loader, folder, args, ["--epochs", "1", "--no-check"])
    if result.problem:
        print(f"    cold: {result.problem}")
        return
    print(
        f"    cold: {result.rows / result.seconds[0] / 1e6:.3f} M rows/s, {size / result.seconds[0] / 1e6:,.0f} MB/s; "
        f"reading the files alone {size / disk / 1e6:,.0f} MB/s",
        flush=True,
    )


def print_verifying(loader: type[Loader], folder: Path, args: argparse.Namespace) -> None:
    """What verifying adds to a first epoch of files in the page cache: the median of pairs of processes in turn."""
    ways = (loader, LOADERS[f"{loader.name}, not verified"])
    more: list[float] = []
    for number in range(args.pairs):
        seconds: dict[type[Loader], float] = {}
        for way in ways if number % 2 else reversed(ways):
            result = run_read(way, folder, args, ["--epochs", "1", "--no-check"])
            if result.problem:
                print(f"    verifying: {result.problem}")
                return
            seconds[way] = result.seconds[0]
        more.append(seconds[ways[0]] / seconds[ways[1]] - 1)
    added = statistics.median(more)
    print(
        f"    verifying adds {added:+.0%} to a first epoch, {added / (1 + added):.0%} of it: median of {args.pairs} "
        f"pairs, which range from {min(more):+.0%} to {max(more):+.0%}",
        flush=True,
    )


def memory_group(limit: int) -> tuple[str, str]:
    """A control group with so many bytes of memory inside our own, or why there is none."""
    reason, listed = "there are no control groups", Path("/proc/self/cgroup")
    for line in listed.read_text().splitlines() if listed.exists() else ():
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        group = Path("/sys/fs/cgroup", controllers, name.lstrip("/"), f"bench-{os.getpid()}")
        try:
            group.mkdir()
            Path(group, "memory.limit_in_bytes" if controllers else "memory.max").write_text(str(limit))
        except OSError as error:
            if group.exists():
                group.rmdir()
            reason = f"{group}: {error.strerror}"
        else:
            return str(group), ""
    return "", reason


def print_capped(loader: type[Loader], folder: Path, size: int, args: argparse.Namespace) -> None:
    """One epoch with less memory than data, against the disk before and after it, since disks are shared."""
    group, reason = memory_group(parse_size(args.capped))
    if not group:
        print(f"    capped: not permitted ({reason})")
        return
    try:
        before = disk_seconds(folder)
        drop_cache(folder)
        result = run_read(loader, folder, args, ["--epochs", "1", "--no-check"], group)
        after = disk_seconds(folder)
    finally:
        os.rmdir(group)
    if result.problem:
        print(f"    capped at {args.capped}: {result.problem}")
        return
    print(
        f"    capped at {args.capped}: {result.rows / result.seconds[0] / 1e6:.3f} M rows/s, "
        f"{size / result.seconds[0] / 1e6:,.0f} MB/s; the disk alone {size / before / 1e6:,.0f} MB/s before and "
        f"{size / after / 1e6:,.0f} after; anonymous memory at most {result.peak_bytes / 1e6:,.0f} MB",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
