"""What becomes of each whole and broken MIDI file of the folder of cases.

Each is read in a process of its own, whose time and memory are told. pretty_midi's note counts are
without drums, which are no notes of a piano. Of each that is refused it is told what repair reads,
and what it says was lost, or why there is nothing to repair.
"""

import csv
import resource
import subprocess
import sys
import time
import warnings

import pretty_midi

import pianolstm as pl
from common import arguments, publish

KINDS = ("read", "refused", "repaired", "crashed", "fewer")


def read(path):
    """In a process of its own: read one file; print time, peak memory and outcome."""
    import pianolstm.midi  # its time is not that of the file

    began = time.process_time()
    try:
        outcome = f"{len(pianolstm.midi.read_notes(path))} notes"
    except pl.MidiError as error:
        outcome = f"MidiError{str(error).removeprefix(path)}\n{repaired(path)}"
    print(time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
    print(outcome)


def repaired(path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            notes = pl.read_notes(path, on_error="repair")
        except pl.MidiError as error:
            return f"not repaired{str(error).removeprefix(path)}"
    return f"repaired: {len(notes)} notes{str(caught[0].message).removeprefix(path)}"


def judge(path):
    try:
        midi = pretty_midi.PrettyMIDI(str(path))
    except Exception as error:
        return type(error).__name__
    return f"{sum(len(i.notes) for i in midi.instruments if not i.is_drum)} notes"


def main():
    if sys.argv[1:2] == ["--one"]:
        return read(sys.argv[2])
    warnings.simplefilter("ignore")
    args = arguments(__doc__.splitlines()[0])
    folder = args.data / "midi-cases"
    lines, worst, counts = [], [0.0, 0], dict.fromkeys(KINDS, 0)
    with (folder / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        cases = [row["file"] for row in csv.DictReader(file, delimiter="\t")]
    for case in cases:
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(folder / case)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        repair = []
        if done.returncode:
            outcome = f"CRASH {done.stderr.splitlines()[-1] if done.stderr else done.returncode}"
            counts["crashed"] += 1
        else:
            numbers, outcome = done.stdout.split("\n", 1)
            outcome, *repair = outcome.strip().split("\n")
            counts["repaired"] += bool(repair) and repair[0].startswith("repaired")
            spent, peak = numbers.split()
            worst = [max(worst[0], float(spent)), max(worst[1], int(peak))]
            counts["read" if outcome.endswith("notes") else "refused"] += 1
        theirs = judge(folder / case)
        differs = theirs.endswith("notes") and theirs not in ("0 notes", outcome)
        counts["fewer"] += differs
        lines.append(f"{'*' if differs else ' '} {case:<52} {theirs:<12} {outcome}")
        lines += [f"{'':<67} {line}" for line in repair]
        print("\n".join(lines[-1 - len(repair) :]), flush=True)
    found = ", ".join(f"{counts[name]} {name}" for name in ("read", "refused", "crashed"))
    found += f" ({counts['repaired']} of those refused can be repaired)"
    head = [
        f"{len(cases)} files: {found}; at most {worst[0]:.2f} s, and {worst[1]} MB with imports",
        f"{counts['fewer']} (*) of those that pretty_midi reads have another number of notes here",
        "",
        f"  {'file':<52} {'pretty_midi':<12} pianolstm",
    ]
    publish(args, "midi_cases", "\n".join(head + lines))


if __name__ == "__main__":
    main()
