"""What the benchmarks share: the data, the kind of machine, and where results go."""

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared" / "data"


def arguments(description: str, **options: object) -> argparse.Namespace:
    """Parse the options that a benchmark has, beside the folder of the data."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=DATA, help=f"default: {DATA}")
    parser.add_argument("--no-results", action="store_true", help="write no file under results/")
    for name, default in options.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=type(default), default=default, help=f"default: {default}")
    return parser.parse_args()


def pieces(args: argparse.Namespace) -> list[Path]:
    """The 86 piano pieces of the study."""
    paths = sorted((args.data / "piano-midi").rglob("*.mid"))
    if not paths:
        sys.exit(f"{args.data}/piano-midi holds no MIDI files; see benchmarks/README.md")
    return paths


def machine() -> str:
    """The kind of machine, as results tell it."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            x.split(":")[1].strip() for x in info.read_text().splitlines() if "model name" in x
        ]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores ({model}), Python {platform.python_version()}"


def publish(args: argparse.Namespace, name: str, text: str) -> None:
    """Print a result, and keep it under results/ with the command and the kind of machine."""
    print(text)
    if not args.no_results:
        options = [
            f" --{key.replace('_', '-')} {value}"
            for key, value in vars(args).items()
            if key != "data" and f"--{key.replace('_', '-')}" in sys.argv
        ]
        head = f"python benchmarks/{name}.py{''.join(options)}\n{machine()}\n\n"
        (HERE / "results" / f"{name}.txt").write_text(head + text + "\n", encoding="utf-8")


def peak_mb(code: str, *argv: str) -> float:
    """Peak memory in MB of a new Python process that runs this code."""
    code += "\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    out = subprocess.run(
        [sys.executable, "-c", code, *argv], check=True, capture_output=True, text=True
    ).stdout
    return int(out.split()[-1]) / (1024 if sys.platform != "darwin" else 1024**2)
