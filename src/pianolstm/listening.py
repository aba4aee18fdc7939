"""The listening test: a page that asks people, and what they answered.

Listeners hear excerpts without their names. Of each they say whether a human or a machine composed
it, and they rank all by how much they are like real piano music: **rank 1 is the most like it**.
"""

from __future__ import annotations

import hashlib
import html
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from pianolstm import audio
from pianolstm.checks import RandomState, as_seed
from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import PianoRoll, as_rolls

FORMAT = "pianolstm-listening-test"
FORMAT_VERSION = 1
KEY = "key.json"
PAGE = "page"
SAMPLING_RATE = 44_100
MAX_SAMPLES = 26  # letters for them


def listening_test(
    samples: Mapping[str, PianoRoll | Sequence[PianoRoll]],
    folder: str | PathLike[str],
    *,
    title: str = "Listening test",
    velocity: int | None = None,
    soundfont: str | PathLike[str] | None = None,
    random_state: RandomState = None,
) -> Path:
    """Make a listening test: a page with a player, a picture and two questions for each excerpt.

    The page needs no server and no network. It names no excerpt: files have names of chance, each
    listener gets an order of their own, and which excerpt is whose stands in ``key.json`` beside
    the folder ``page``. **Give listeners the folder page alone.** It saves the answers of each as
    a file; put these files into `folder`, and `read_listening_test` reads them.

    All excerpts are made equally loud on average. What else would tell them apart is for you to
    settle: cut them to one length, and give them one velocity if some were written without.

    Parameters
    ----------
    samples : mapping of str to PianoRoll or list of PianoRoll
        Excerpts by the name of what made them, such as ``{"real": [...], "lstm": [...]}``; from 2
        to 26 in all, best of less than a minute each.
    folder : path
        Where to; made here, or empty.
    title : str, default="Listening test"
        Headline of the page.
    velocity : int, default=None
        One velocity 1-127 for all notes; None keeps each note's own.
    soundfont : path, default=None
        As for `pianolstm.audio.render`.
    random_state : int, numpy.random.Generator or None, default=None
        Draws the names of the files.

    Returns
    -------
    Path
        The page, to be opened in a browser.

    Raises
    ------
    InvalidInputError
        If the samples are no such mapping, one of them has no notes, or the folder is not empty.

    Warns
    -----
    UserWarning
        If the extra ``audio`` is not installed: excerpts are played on sine waves then.

    Examples
    --------
    >>> import tempfile, pianolstm as pl
    >>> rolls = pl.datasets.load_chorales("test")
    >>> samples = {"Bach": [roll[:32] for roll in rolls[:2]], "backwards": rolls[2][32:64]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = pl.listening_test(samples, folder, random_state=0)
    ...     len(list(page.parent.glob("*.wav")))
    3
    """
    names, rolls = _checked_samples(samples)
    target = _checked_folder(folder)
    key, data = _blinded(names, rolls, title, as_seed(random_state))
    sounds = _equally_loud(
        [
            audio.render(
                roll.to_midi(velocity=velocity), sampling_rate=SAMPLING_RATE, soundfont=soundfont
            )
            for roll in rolls
        ]
    )
    # Under its own name only when it is whole.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        whole = Path(temporary) / "test"
        (whole / PAGE).mkdir(parents=True)
        for sample, sound in zip(key["samples"], sounds, strict=True):
            audio.write_sound(whole / PAGE / f"{sample}.wav", sound, SAMPLING_RATE)
        (whole / PAGE / "index.html").write_text(_page(title, data), encoding="utf-8")
        (whole / KEY).write_text(json.dumps(key, indent=1), encoding="utf-8")
        if target.exists():
            target.rmdir()
        whole.rename(target)
    return target / PAGE / "index.html"


@dataclass(frozen=True, eq=False)
class ListeningResults:
    """What listeners answered; from `read_listening_test`. ``print(results)`` shows a table.

    Attributes
    ----------
    names : tuple of str, length n_samples
        What made each excerpt, in the order of the names; one with several excerpts comes several
        times.
    listeners : tuple of str, length n_listeners
        Their names, or a number of chance for those who gave none.
    ranks : ndarray of int, shape (n_listeners, n_samples)
        1 is the most like real music.
    judged_human : ndarray of bool, shape (n_listeners, n_samples)
        Taken for the work of a human.

    Examples
    --------
    >>> import numpy as np, pianolstm as pl
    >>> ranks = np.array([[3, 1, 2], [2, 1, 3]])
    >>> human = np.array([[False, True, True], [True, True, False]])
    >>> print(pl.ListeningResults(("lstm", "real", "real"), ("Ann", "Ben"), ranks, human))
    name  excerpts  mean rank  judged human
    real         2       1.75  3 of 4 (75%)
    lstm         1       2.50  1 of 2 (50%)
    2 listeners, Kendall's W 0.75
    """

    names: tuple[str, ...]
    listeners: tuple[str, ...]
    ranks: np.ndarray
    judged_human: np.ndarray

    @property
    def mean_rank(self) -> dict[str, float]:
        """Mean rank of each name over listeners and excerpts, the most like real music first."""
        means = {name: float(self.ranks[:, at].mean()) for name, at in self._columns().items()}
        return dict(sorted(means.items(), key=lambda item: item[1]))

    @property
    def share_human(self) -> dict[str, float]:
        """Share of the answers in which each name was taken for a human, in the order of ranks."""
        columns = self._columns()
        return {name: float(self.judged_human[:, columns[name]].mean()) for name in self.mean_rank}

    @property
    def kendalls_w(self) -> float:
        """Agreement of the listeners about the ranks, from 0 (none) to 1 (all alike).

        Kendall's coefficient of concordance, W = 12 S / (m² (n³ - n)) for m listeners and n
        excerpts, where S is the sum of squared deviations of the excerpts' rank sums from their
        mean (Kendall and Babington Smith, 1939). NaN for one listener.
        """
        m, n = self.ranks.shape
        if m == 1:
            return float("nan")
        sums = self.ranks.sum(axis=0)
        return float(12 * ((sums - sums.mean()) ** 2).sum() / (m**2 * (n**3 - n)))

    def __str__(self) -> str:
        columns = self._columns()
        width = max(len(name) for name in (*columns, "name"))
        lines = [f"{'name':<{width}}  excerpts  mean rank  judged human"]
        for name, rank in self.mean_rank.items():
            judged = self.judged_human[:, columns[name]]
            human = f"{judged.sum()} of {judged.size} ({judged.mean():.0%})"
            lines.append(f"{name:<{width}}  {len(columns[name]):>8}  {rank:>9.2f}  {human:>12}")
        m = len(self.listeners)
        agreement = f"{m} listeners, Kendall's W {self.kendalls_w:.2f}"
        return "\n".join([*lines, "1 listener" if m == 1 else agreement])

    def _columns(self) -> dict[str, np.ndarray]:
        names = np.array(self.names)
        return {name: np.flatnonzero(names == name) for name in dict.fromkeys(self.names)}


def read_listening_test(
    folder: str | PathLike[str], results: Sequence[str | PathLike[str]] | None = None
) -> ListeningResults:
    """Read what listeners answered.

    Parameters
    ----------
    folder : path
        What `listening_test` made.
    results : list of path, default=None
        Files that listeners saved; None takes every ``.json`` file in the folder itself. Where
        somebody has saved twice, the later answers count.

    Returns
    -------
    ListeningResults

    Raises
    ------
    InvalidInputError
        If the folder holds no test, there is no file of answers, or one is of another test,
        incomplete or broken.
    """
    folder = Path(folder)
    what = f"the key of a listening test, which {folder} should hold"
    key = _read_json(folder / KEY, "samples", what)
    if results is None:
        paths = sorted(path for path in folder.glob("*.json") if path.name != KEY)
    elif isinstance(results, (str, PathLike)):
        raise InvalidInputError(f"results must be a list of paths; write [{str(results)!r}].")
    else:
        paths = [Path(path) for path in results]
    if not paths:
        raise InvalidInputError(
            f"There are no answers in {folder}; put the files there that listeners saved "
            "(result-….json)."
        )
    answers: dict[str, dict[str, Any]] = {}
    for path in paths:
        answer = _read_answer(path, key)
        before = answers.get(answer["listener"])
        if before is None or before["saved"] <= answer["saved"]:
            answers[answer["listener"]] = answer
    ids = sorted(key["samples"], key=lambda i: (key["samples"][i], i))
    return ListeningResults(
        names=tuple(key["samples"][i] for i in ids),
        listeners=tuple(a["name"] or a["listener"] for a in answers.values()),
        ranks=np.array([[a["ranks"][i] for i in ids] for a in answers.values()]),
        judged_human=np.array([[a["human"][i] for i in ids] for a in answers.values()]),
    )


def _checked_samples(samples: Any) -> tuple[list[str], list[PianoRoll]]:
    """The name and the roll of each excerpt."""
    if not isinstance(samples, Mapping):
        raise InvalidInputError(
            'samples must be a dict of names to rolls, as {"real": [...], "lstm": [...]}; got '
            f"{type(samples).__name__}."
        )
    names, rolls = [], []
    for name, given in samples.items():
        if not isinstance(name, str) or not name:
            raise InvalidInputError(f"The names of samples must be strings; got {name!r}.")
        of_name = [given] if isinstance(given, PianoRoll) else as_rolls(given, f"samples[{name!r}]")
        for i, roll in enumerate(of_name):
            if not len(roll.notes):
                raise InvalidInputError(f"samples[{name!r}][{i}] has no notes to hear.")
        names += [name] * len(of_name)
        rolls += of_name
    if not 2 <= len(rolls) <= MAX_SAMPLES:
        raise InvalidInputError(
            f"A listening test has from 2 to {MAX_SAMPLES} excerpts; got {len(rolls)}."
        )
    return names, rolls


def _checked_folder(folder: str | PathLike[str]) -> Path:
    """The folder, which is not there yet, or empty."""
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidInputError(
            f"{target} is there and not empty; a listening test gets a folder of its own."
        )
    if not target.parent.is_dir():
        raise InvalidInputError(f"{target}: there is no folder {target.parent}; make it first.")
    return target


def _blinded(
    names: list[str], rolls: list[PianoRoll], title: str, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The key, which names each excerpt, and what the page holds, which names none."""
    numbers = np.random.default_rng(seed).choice(2**32, len(names), replace=False)
    ids = [f"{number:08x}" for number in numbers.tolist()]
    drawn = [{"id": i, **_drawing(roll)} for i, roll in zip(ids, rolls, strict=True)]
    key = dict(zip(ids, names, strict=True))
    test = hashlib.sha256(json.dumps([seed, title, key, drawn]).encode()).hexdigest()[:16]
    kind = {"format": FORMAT, "version": FORMAT_VERSION, "test": test}
    pitches = np.concatenate([roll.notes["pitch"] for roll in rolls])
    # By their ids, which are of chance: the page does not hold them in the order of the key.
    samples = sorted(drawn, key=lambda sample: sample["id"])
    data = {"pitches": [int(pitches.min()), int(pitches.max())], "samples": samples}
    return {**kind, "title": title, "samples": key}, {**kind, **data}


def _drawing(roll: PianoRoll) -> dict[str, Any]:
    """What the page draws: start and end of each note in seconds, and its pitch."""
    starts, ends = (roll.frames_to_seconds(roll.notes[field]) for field in ("start", "end"))
    notes = zip(
        np.round(starts, 3).tolist(),
        np.round(ends, 3).tolist(),
        roll.notes["pitch"].tolist(),
        strict=True,
    )
    return {"seconds": round(roll.seconds, 3), "notes": list(notes)}


def _equally_loud(sounds: list[np.ndarray]) -> list[np.ndarray]:
    """Samples of one root mean square, as loud as none of them clips."""
    level = [float(np.sqrt(np.mean(sound**2, dtype=np.float64))) for sound in sounds]
    loudest = max(float(np.abs(s).max()) / rms for s, rms in zip(sounds, level, strict=True))
    return [
        s * np.float32(audio.PEAK / loudest / rms) for s, rms in zip(sounds, level, strict=True)
    ]


def _page(title: str, data: dict[str, Any]) -> str:
    template = (files("pianolstm") / "data" / "listening.html").read_text(encoding="utf-8")
    # No text of the data can end the element that holds it.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return template.replace("{{data}}", text).replace("{{title}}", html.escape(title))


def _read_json(path: Path, field: str, what: str) -> dict[str, Any]:
    """An object of this format, with such a field, from a file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(
            f"{path} can't be read: {error.strerror}. Expected {what}."
        ) from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT or field not in found:
        raise InvalidInputError(f"{path}: expected {what}; got something else.")
    if found.get("version") != FORMAT_VERSION:
        raise InvalidInputError(
            f"{path} is of version {found.get('version')}; this library reads {FORMAT_VERSION}."
        )
    return found


def _read_answer(path: Path, key: dict[str, Any]) -> dict[str, Any]:
    """One listener's answers to the test of the key."""
    answer = _read_json(path, "ranks", "answers that a listener saved")
    if answer.get("test") != key["test"]:
        raise InvalidInputError(
            f"{path} answers another listening test ({answer.get('test')}, expected "
            f"{key['test']}); move it to the folder of that one."
        )
    ids, ranks, human = set(key["samples"]), answer.get("ranks"), answer.get("human")
    is_whole = (
        all(isinstance(answer.get(field), str) for field in ("listener", "name", "saved"))
        and isinstance(ranks, dict)
        and isinstance(human, dict)
        and set(ranks) == set(human) == ids
        and sorted(map(repr, ranks.values())) == sorted(map(repr, range(1, len(ids) + 1)))
        and all(isinstance(value, bool) for value in human.values())
    )
    if not is_whole:
        raise InvalidInputError(
            f"{path}: expected a rank from 1 to {len(ids)} and an answer for each excerpt; ask the "
            "listener to save it again."
        )
    return answer
