"""How much of the code the fuzz targets reach: `reach.py [TARGET…]`, from the root of the repository.

Replays the corpora of the repository, and what fuzzing has found here since (.build/fuzz/found), with coverage of lines
and branches: in C by clang's source-based coverage of csrc, in Python by coverage.py of wire, crypto and proto. Prints
a table of targets, one of files, and sums; build/fuzz/coverage.json has the same. What only fails when the system does
(no memory, no library), or is never asked by a peer (a congestion controller that nobody chose), no input reaches.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import run

PLACE = run.BUILD / "reaching"
REPORT = run.ROOT / "build" / "fuzz" / "coverage.json"
PACKAGES = ("wire", "crypto", "proto")
MOST_REPLAYED = 1500
"""Inputs of what was found that are replayed: the rest, evenly chosen, would add minutes and little else."""


@dataclass
class Reach:
    """What was executed of something."""

    lines: int = 0
    of_lines: int = 0
    branches: int = 0
    of_branches: int = 0

    def __add__(self, other: Reach) -> Reach:
        return Reach(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    def __str__(self) -> str:
        return f"{_share(self.lines, self.of_lines)}  {_share(self.branches, self.of_branches)}"


def _share(part: int, whole: int) -> str:
    return f"{part:>6,} of {whole:>6,} {100 * part / whole if whole else 100:>5.1f} %"


def inputs(name: str) -> list[str]:
    """The corpus, and some of what was found."""
    found = sorted((run.BUILD / "found" / name).glob("*"))
    seeds = [path for path in found if path.name.startswith("seed-")]
    found = [path for path in found if not path.name.startswith("seed-")]
    found = found[:: 1 + (len(found) - 1) // MOST_REPLAYED] if found else []
    return [str(path) for path in (*sorted((run.CORPUS / name).glob("*")), *seeds, *found)]


def _output(command: Sequence[str], **environment: str) -> str:
    done = subprocess.run(
        command, cwd=run.ROOT, capture_output=True, text=True, errors="replace", check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:6])} …\n{done.stderr[-4000:]}")
    return done.stdout


# --- C ---------------------------------------------------------------------------------------------------------


def llvm(tool: str) -> str | None:
    """The tool that belongs to this clang."""
    version = _output(["clang", "-dumpversion"]).partition(".")[0]
    return shutil.which(f"{tool}-{version}") or shutil.which(tool)


def replay_in_c(name: str) -> Path:
    """Builds a harness that counts, and runs it; where the counts are. The program lies beside them."""
    program, raw, profile = PLACE / name, PLACE / f"{name}.profraw", PLACE / f"{name}.profdata"
    sources = [run.HERE / "c" / f"{name}.c", run.HERE / "c" / "replay.c", *sorted((run.ROOT / "csrc").glob("*.c"))]
    flags = ["-std=c11", "-O0", "-g", "-Icsrc", "-fprofile-instr-generate", "-fcoverage-mapping"]
    _output(["clang", *flags, "-o", str(program), *map(str, sources), "-ldl"])
    _output([str(program), *inputs(name)], LLVM_PROFILE_FILE=str(raw))
    _output([str(llvm("llvm-profdata")), "merge", "-sparse", str(raw), "-o", str(profile)])
    return profile


def reach_in_c(names: Sequence[str], profile: Path) -> dict[str, Reach]:
    """By file, of the programs together."""
    first, *others = (str(PLACE / name) for name in names)
    objects = [word for other in others for word in ("-object", other)]
    command = [str(llvm("llvm-cov")), "export", "-summary-only", f"-instr-profile={profile}", first, *objects]
    found = {}
    for one in json.loads(_output(command))["data"][0]["files"]:
        path, counts = Path(one["filename"]), one["summary"]
        if path.resolve().parent == run.ROOT / "csrc":
            lines, branches = counts["lines"], counts["branches"]
            found[f"csrc/{path.name}"] = Reach(lines["covered"], lines["count"], branches["covered"], branches["count"])
    return found


# --- Python ----------------------------------------------------------------------------------------------------


def replay_in_python(name: str) -> Path:
    """Runs a target with coverage; where the counts are."""
    data = PLACE / f"{name}.coverage"
    sources = ",".join(str(run.ROOT / "src" / "burstwire" / package) for package in PACKAGES)
    _output(
        [sys.executable, "-m", "coverage", "run", "--branch", f"--source={sources}", f"--data-file={data}",
         str(run.HERE / "python_fuzzer.py"), name, *inputs(name)]
    )  # fmt: skip
    return data


def reach_in_python(datas: Sequence[Path]) -> dict[str, Reach]:
    """By file, of all of them together."""
    together = PLACE / "together.coverage"
    target = PLACE / "coverage.json"
    coverage = [sys.executable, "-m", "coverage"]
    _output([*coverage, "combine", "--keep", "-q", f"--data-file={together}", *map(str, datas)])
    _output([*coverage, "json", "-q", f"--data-file={together}", "-o", str(target)])
    found = {}
    for name, one in json.loads(target.read_text(encoding="utf-8"))["files"].items():
        counts = one["summary"]
        found[str(Path(name)).removeprefix("src/burstwire/")] = Reach(
            counts["covered_lines"], counts["num_statements"], counts["covered_branches"], counts["num_branches"]
        )
    return found


# --- both ------------------------------------------------------------------------------------------------------


def replay(name: str) -> Path:
    """Runs a target on its inputs; where the counts are."""
    return replay_in_c(name) if name in run.SOURCES else replay_in_python(name)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", help="only these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time (all processors)")
    options = parser.parse_args(arguments)
    in_python = run.python_names()
    every = [*run.SOURCES, *in_python]
    names = options.targets or every
    unknown = [name for name in names if name not in every]
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(every)}")
    if shutil.which("clang") is None or llvm("llvm-cov") is None or llvm("llvm-profdata") is None:
        print("csrc is not counted: clang, llvm-cov or llvm-profdata is missing (Debian: apt install clang llvm)")
        names = [name for name in names if name in in_python]
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    run.seed_corpora()
    with ThreadPoolExecutor(options.jobs) as pool:
        counted = dict(zip(names, pool.map(replay, names), strict=True))
    targets: dict[str, Reach] = {}
    for name in names:
        files = reach_in_c([name], counted[name]) if name in run.SOURCES else reach_in_python([counted[name]])
        targets[name] = sum(files.values(), Reach())
    files = {}
    parts = [name for name in names if name in run.SOURCES]
    if parts:
        together = PLACE / "together.profdata"
        profiles = [str(counted[name]) for name in parts]
        _output([str(llvm("llvm-profdata")), "merge", "-sparse", *profiles, "-o", str(together)])
        files.update(reach_in_c(parts, together))
    if any(name in in_python for name in names):
        files.update(reach_in_python([counted[name] for name in names if name in in_python]))
    sums = {
        "csrc": sum((reach for name, reach in files.items() if name.startswith("csrc/")), Reach()),
        **{
            package: sum((reach for name, reach in files.items() if name.startswith(f"{package}/")), Reach())
            for package in PACKAGES
        },
    }
    for title, table in (("target", targets), ("file", files), ("in sum", sums)):
        print(f"{title:32} {'lines':>24}  {'branches':>24}")
        for name, reach in table.items():
            print(f"{name:32} {reach}")
        print()
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    tables = {"targets": targets, "files": files, "sums": sums}
    plain = {title: {name: asdict(reach) for name, reach in table.items()} for title, table in tables.items()}
    REPORT.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
