"""Drives one target in Python: `python_fuzzer.py TARGET [libFuzzer's options] CORPUS…`, with atheris where it is there.

Without atheris: `-max_total_time=N` seconds of `mutation.py` from `-seed=N`. Files alone are run once each, which
replays a crash. Both print what run.py looks for.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "proto"), str(HERE.parent)]


def replayed(run: Callable[[bytes], None], files: list[Path]) -> int:
    """Each file once."""
    for file in files:
        run(file.read_bytes())
    print(f"{len(files)} files replayed")
    return 0


def without_atheris(run: Callable[[bytes], None], longest: int, options: dict[str, str], corpus: list[Path]) -> int:
    """The fuzzer that needs nothing."""
    from mutation import mutated

    inputs = [file.read_bytes() for place in corpus for file in sorted(place.iterdir())] or [b""]
    random = Random(int(options.get("seed", "1")))
    end = time.monotonic() + float(options.get("max_total_time", "5"))
    executions = 0
    while time.monotonic() < end:
        data = mutated(inputs, random, longest)
        executions += 1
        try:
            run(data)
        except BaseException:
            traceback.print_exc()
            file = Path(options.get("artifact_prefix", "./") + "crash-" + sha256(data).hexdigest()[:16])
            file.write_bytes(data)
            print(f"Test unit written to {file}", file=sys.stderr)
            return 1
    print(f"stat::number_of_executed_units: {executions}", file=sys.stderr)
    return 0


def main() -> int:
    name, *rest = sys.argv[1:]
    options = dict(word[1:].split("=", 1) for word in rest if word.startswith("-") and "=" in word)
    places = [Path(word) for word in rest if not word.startswith("-")]
    files = [place for place in places if place.is_file()]
    if not files:
        try:
            import atheris
        except ImportError:
            pass
        else:
            with atheris.instrument_imports(include=["burstwire"]):
                from targets import TARGETS
            target = TARGETS[name]
            # libFuzzer starts itself again, by this name, when it merges corpora.
            atheris.Setup([f"{sys.executable} {__file__} {name}", *rest, f"-max_len={target.longest}"], target.run)
            atheris.Fuzz()
            return 0
    from targets import TARGETS

    target = TARGETS[name]
    return replayed(target.run, files) if files else without_atheris(target.run, target.longest, options, places)


if __name__ == "__main__":
    sys.exit(main())
