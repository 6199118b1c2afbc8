"""All fuzz targets for so many seconds in sum: `run.py SECONDS [TARGET…]`, from the root of the repository.

The seconds are divided equally among the targets, and as many targets run at a time as there are processors: an hour
on two of them takes half an hour. Targets in C are built with clang and libFuzzer where clang is there, else with gcc
and the mutations of replay.c; those in Python run under atheris where it is there, else under mutation.py. Prints a
line for each: executions, coverage (edges as libFuzzer counts them, and features), new inputs, crashes; and what they
are in sum, which build/fuzz/report.json repeats. What is new goes to .build/fuzz/found/TARGET and, minimised with
`--keep`, into the corpus of the repository. Exits with 1 when a target crashed; its input lies in .build/fuzz/crashes,
and the command that replays it is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / ".build" / "fuzz"
CORPUS = HERE / "corpus"
REPORT = ROOT / "build" / "fuzz" / "report.json"
SOURCES = sorted(path.stem for path in (HERE / "c").glob("*.c") if path.stem != "replay")
LONGEST_IN_C = 600
"""Bytes of an input of a target in C."""
KEPT = 20_000
"""Bytes of a target's corpus that are kept in the repository: it is replayed with every run of the tests."""
MOST_KEPT = 100
"""Inputs of it."""
SLOW = ("datagrams", "peer")
"""Of these half as many: each input takes milliseconds."""

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g", "-O1"]
ENVIRONMENT = {"ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1"}


@dataclass
class Outcome:
    """What a run of one target brought.

    Attributes:
        engine: who chose the inputs.
        executions, edges, features, new: as libFuzzer counts them; None: not known.
        crashes: inputs that brought it down.
        output: everything that was printed.
    """

    engine: str
    executions: int | None
    edges: int | None
    features: int | None
    new: int | None
    crashes: list[Path]
    code: int
    output: str

    @property
    def failed(self) -> bool:
        """Whether it found something, or did not end as it should."""
        return bool(self.code or self.crashes)


def c_flags(compiler: str, fuzzer: bool) -> list[str]:
    """Of everything in C. Only gcc says itself that it sanitizes addresses, and the ring wants to know it."""
    flags = ["-std=c11", "-Wall", "-Wextra", "-Icsrc", *SANITIZERS]
    if "clang" in compiler:
        flags.append("-D__SANITIZE_ADDRESS__=1")
    # A replay is short: compiling takes longer than running.
    return [*flags, "-fsanitize=fuzzer-no-link"] if fuzzer else [*flags, "-O0"]


def build(name: str, compiler: str, fuzzer: bool) -> Path:
    """The harness, made anew when a source is younger; the core is compiled once for all of them."""
    place = BUILD / ("fuzzing" if fuzzer else "replaying")
    place.mkdir(parents=True, exist_ok=True)
    headers = [HERE / "c" / "fuzz.h", *(ROOT / "csrc").glob("*.h"), Path(__file__)]
    newest = max(path.stat().st_mtime for path in headers)
    own = [HERE / "c" / f"{name}.c"] if fuzzer else [HERE / "c" / f"{name}.c", HERE / "c" / "replay.c"]
    flags = c_flags(compiler, fuzzer)

    def compiled(source: Path) -> Path:
        target = place / f"{source.parent.name}-{source.stem}.o"
        if not target.exists() or target.stat().st_mtime < max(newest, source.stat().st_mtime):
            _run([*compiler.split(), *flags, "-c", "-o", str(target), str(source.relative_to(ROOT))])
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [*own, *sorted((ROOT / "csrc").glob("*.c"))]))
    program = place / name
    if not program.exists() or program.stat().st_mtime < max(path.stat().st_mtime for path in objects):
        main = ["-fsanitize=fuzzer"] if fuzzer else []
        _run([*compiler.split(), *SANITIZERS, *main, "-o", str(program), *map(str, objects), "-ldl"])
    return program


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")


def has_libfuzzer(clang: str | None) -> bool:
    """Whether clang is there with its runtime library, which is a package of its own."""
    if clang is None:
        return False
    BUILD.mkdir(parents=True, exist_ok=True)
    source = "#include <stddef.h>\nint LLVMFuzzerTestOneInput(const char *d, size_t n);\n"
    source += "int LLVMFuzzerTestOneInput(const char *d, size_t n) { return d && n > 99; }\n"
    command = [clang, "-x", "c", "-fsanitize=fuzzer,address", "-o", str(BUILD / "probe"), "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=False).returncode == 0


def has_atheris() -> bool:
    """Whether this Python has atheris."""
    done = subprocess.run([sys.executable, "-c", "import atheris"], capture_output=True, check=False)
    return done.returncode == 0


def python_names() -> list[str]:
    """The targets in Python."""
    sys.path[:0] = [str(HERE), str(HERE.parent / "proto"), str(HERE.parent)]
    from targets import TARGETS

    return list(TARGETS)


def command_for(name: str, libfuzzer: bool, atheris: bool) -> tuple[str, list[str]]:
    """Who chooses the inputs of a target, and how it is started."""
    if name not in SOURCES:
        engine = "atheris" if atheris else "mutation.py"
        return engine, [sys.executable, str(HERE / "python_fuzzer.py"), name]
    if libfuzzer:
        return "libFuzzer", [str(build(name, "clang", True)), f"-max_len={LONGEST_IN_C}"]
    return "replay.c", [str(build(name, os.environ.get("CC", "cc"), False))]


def fuzz(name: str, seconds: int, libfuzzer: bool, atheris: bool, seed: int) -> Outcome:
    """One target for so many seconds."""
    engine, command = command_for(name, libfuzzer, atheris)
    found, crashes = BUILD / "found" / name, BUILD / "crashes"
    for place in (found, crashes, CORPUS / name):
        place.mkdir(parents=True, exist_ok=True)
    prefix = f"{crashes}/{name}-"
    before = set(crashes.glob(f"{name}-*"))
    if engine == "replay.c":
        files = [str(path) for place in (CORPUS / name, found) for path in sorted(place.iterdir())]
        command += [f"-seconds={seconds}", f"-seed={seed}", f"-save={prefix}crash-{seed}", *files]
    else:
        command += [str(found), str(CORPUS / name), f"-max_total_time={seconds}", f"-seed={seed}"]
        command += [f"-artifact_prefix={prefix}", "-print_final_stats=1", "-timeout=25", "-rss_limit_mb=1500"]
    # A fuzzer that hangs is ended here; its own limit for one input has come before.
    limit = seconds + 120
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=limit,
            env={**os.environ, **ENVIRONMENT}, check=False,
        )  # fmt: skip
        code, output = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as expired:
        code, output = 1, f"no end after {limit} s\n{expired.stderr}"
    lines = re.findall(r"cov: (\d+) ft: (\d+)", output)
    edges, features = map(int, lines[-1]) if lines else (None, None)
    return Outcome(
        engine,
        _last(r"number_of_executed_units: (\d+)|(\d+) executions", output),
        edges,
        features,
        _last(r"new_units_added: *(\d+)", output),
        sorted(set(crashes.glob(f"{name}-*")) - before),
        code,
        output,
    )


def _last(pattern: str, text: str) -> int | None:
    found = re.findall(pattern, text)
    if not found:
        return None
    last = found[-1]
    return int(last if isinstance(last, str) else "".join(last))


def keep(name: str, libfuzzer: bool, atheris: bool) -> None:
    """Puts the smallest set of inputs with the same coverage into the repository, the small ones first."""
    _, command = command_for(name, libfuzzer, atheris)
    merged = BUILD / "merged" / name
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    places = [str(BUILD / "found" / name), str(CORPUS / name)]
    subprocess.run(
        [*command, "-merge=1", str(merged), *places], cwd=ROOT, check=True, capture_output=True,
        env={**os.environ, **ENVIRONMENT},
    )  # fmt: skip
    shutil.rmtree(CORPUS / name)
    (CORPUS / name).mkdir()
    inputs = sorted(merged.iterdir(), key=lambda path: (path.stat().st_size, path.name))
    kept = 0
    most = MOST_KEPT // 2 if name in SLOW else MOST_KEPT
    for path in inputs[:: 1 + (len(inputs) - 1) // most]:  # small and large ones, if they are too many
        kept += path.stat().st_size
        if kept > KEPT:
            break
        shutil.copyfile(path, CORPUS / name / path.name[:16])


def seed_corpora() -> None:
    """Writes what the targets in Python begin with beside what was found; it is the code's own, so it is not kept."""
    python_names()
    from targets import TARGETS

    for name, target in TARGETS.items():
        place = BUILD / "found" / name
        place.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(target.seeds()):
            (place / f"seed-{number:03}").write_bytes(data)


def fuzzed(name: str, share: int, options: argparse.Namespace, libfuzzer: bool, atheris: bool) -> Outcome:
    """One target, with what belongs to it."""
    outcome = fuzz(name, share, libfuzzer, atheris, options.seed)
    if options.keep and not outcome.failed:
        keep(name, libfuzzer, atheris)
    return outcome


def shown(name: str, outcome: Outcome, libfuzzer: bool, atheris: bool) -> None:
    """A line, and what is needed to look into a crash."""
    counts = [
        "-" if value is None else f"{value:,}"
        for value in (outcome.executions, outcome.edges, outcome.features, outcome.new)
    ]
    print(
        f"{name:12} {outcome.engine:11} {counts[0]:>11} {counts[1]:>6} {counts[2]:>8} {counts[3]:>6} "
        f"{len(outcome.crashes):>7}",
        flush=True,
    )
    if outcome.failed:
        print("\n".join(outcome.output.splitlines()[-40:]))
        for crash in outcome.crashes:
            _, command = command_for(name, libfuzzer, atheris)
            print(f"replay with: {' '.join(command)} {crash}")


def summary(outcomes: dict[str, Outcome], share: int, wall: float) -> dict[str, object]:
    """What the run brought, for the report."""
    return {
        "seconds": share * len(outcomes),
        "wall_seconds": round(wall, 1),
        "executions": sum(outcome.executions or 0 for outcome in outcomes.values()),
        "crashes": sum(len(outcome.crashes) for outcome in outcomes.values()),
        "failed": sorted(name for name, outcome in outcomes.items() if outcome.failed),
        "targets": {
            name: {
                "engine": outcome.engine,
                "seconds": share,
                "executions": outcome.executions,
                "edges": outcome.edges,
                "features": outcome.features,
                "new": outcome.new,
                "crashes": [path.name for path in outcome.crashes],
            }
            for name, outcome in sorted(outcomes.items())
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("seconds", type=int, help="for all targets together")
    parser.add_argument("targets", nargs="*", help="only these")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time (all processors)")
    parser.add_argument("--keep", action="store_true", help="put what was found, minimised, into the repository")
    options = parser.parse_args(arguments)
    every = [*SOURCES, *python_names()]
    names = options.targets or every
    unknown = [name for name in names if name not in every]
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(every)}")
    libfuzzer, atheris = has_libfuzzer(shutil.which("clang")), has_atheris()
    seed_corpora()
    for name in names:
        command_for(name, libfuzzer, atheris)  # built one by one: they share what is compiled
    share = max(1, options.seconds // len(names))
    print(f"{len(names)} targets, {share} s each, {options.jobs} at a time", flush=True)
    print("target       engine       executions  edges features    new crashes", flush=True)
    start = time.monotonic()
    outcomes: dict[str, Outcome] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(fuzzed, name, share, options, libfuzzer, atheris): name for name in names}
        for done in as_completed(running):
            name = running[done]
            outcomes[name] = done.result()
            shown(name, outcomes[name], libfuzzer, atheris)
    found = summary(outcomes, share, time.monotonic() - start)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(
        f"{found['executions']:,} executions, {found['crashes']} crashes, {found['seconds']:,} s of fuzzing in "
        f"{found['wall_seconds']:,.0f} s; report in {REPORT.relative_to(ROOT)}",
        flush=True,
    )
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
