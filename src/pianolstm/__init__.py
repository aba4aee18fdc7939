"""Learn piano music from MIDI with LSTMs, write more of it, and measure how near it is.

Names are imported when they are first used: ``import pianolstm`` itself loads nothing beyond the
standard library, and what reads and encodes MIDI never loads JAX.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pianolstm import audio, callbacks, constraints, datasets, exceptions, plotting
    from pianolstm.chords import chord_pitches
    from pianolstm.encoder import PianoRollEncoder
    from pianolstm.exceptions import (
        DataLossWarning,
        InvalidInputError,
        MidiError,
        ModelFileError,
        PianoLSTMError,
        StoreError,
    )
    from pianolstm.generator import SequenceGenerator
    from pianolstm.listening import ListeningResults, listening_test, read_listening_test
    from pianolstm.midi import Notes, describe_midi, read_notes, split_midi
    from pianolstm.rolls import PianoRoll
    from pianolstm.scoring.borrowing import Borrowing, NoveltyReport, Passage
    from pianolstm.scoring.distribution import NoteDistributionScorer
    from pianolstm.scoring.measures import (
        MeasureComparison,
        Measures,
        compare_measures,
        measures,
    )
    from pianolstm.scoring.ngrams import NgramBaseline
    from pianolstm.scoring.novelty import NoveltyScorer
    from pianolstm.scoring.rank_correlation import RankCorrelation, rank_correlation
    from pianolstm.scoring.repetition import Repetition, repetition
    from pianolstm.scoring.structure import Structure, structure
    from pianolstm.scoring.two_sample import TwoSampleTest, two_sample_test
    from pianolstm.store import TokenStore
    from pianolstm.streams import Stream
    from pianolstm.tempo import TempoMap
    from pianolstm.tokens import ChordSequence, ChordTokenizer
    from pianolstm.windows import WindowDataset

__version__ = "0.1.0"

_MODULE_OF = {
    "Borrowing": "scoring.borrowing",
    "ChordSequence": "tokens",
    "ChordTokenizer": "tokens",
    "DataLossWarning": "exceptions",
    "InvalidInputError": "exceptions",
    "ListeningResults": "listening",
    "MeasureComparison": "scoring.measures",
    "Measures": "scoring.measures",
    "MidiError": "exceptions",
    "ModelFileError": "exceptions",
    "NgramBaseline": "scoring.ngrams",
    "NoteDistributionScorer": "scoring.distribution",
    "Notes": "midi",
    "NoveltyReport": "scoring.borrowing",
    "NoveltyScorer": "scoring.novelty",
    "Passage": "scoring.borrowing",
    "PianoLSTMError": "exceptions",
    "PianoRoll": "rolls",
    "PianoRollEncoder": "encoder",
    "RankCorrelation": "scoring.rank_correlation",
    "Repetition": "scoring.repetition",
    "SequenceGenerator": "generator",
    "StoreError": "exceptions",
    "Stream": "streams",
    "Structure": "scoring.structure",
    "TempoMap": "tempo",
    "TokenStore": "store",
    "TwoSampleTest": "scoring.two_sample",
    "WindowDataset": "windows",
    "chord_pitches": "chords",
    "compare_measures": "scoring.measures",
    "describe_midi": "midi",
    "listening_test": "listening",
    "measures": "scoring.measures",
    "rank_correlation": "scoring.rank_correlation",
    "read_listening_test": "listening",
    "read_notes": "midi",
    "repetition": "scoring.repetition",
    "split_midi": "midi",
    "structure": "scoring.structure",
    "two_sample_test": "scoring.two_sample",
}
_MODULES = ("audio", "callbacks", "constraints", "datasets", "exceptions", "plotting")

__all__ = [
    "Borrowing",
    "ChordSequence",
    "ChordTokenizer",
    "DataLossWarning",
    "InvalidInputError",
    "ListeningResults",
    "MeasureComparison",
    "Measures",
    "MidiError",
    "ModelFileError",
    "NgramBaseline",
    "NoteDistributionScorer",
    "Notes",
    "NoveltyReport",
    "NoveltyScorer",
    "Passage",
    "PianoLSTMError",
    "PianoRoll",
    "PianoRollEncoder",
    "RankCorrelation",
    "Repetition",
    "SequenceGenerator",
    "StoreError",
    "Stream",
    "Structure",
    "TempoMap",
    "TokenStore",
    "TwoSampleTest",
    "WindowDataset",
    "__version__",
    "audio",
    "callbacks",
    "chord_pitches",
    "compare_measures",
    "constraints",
    "datasets",
    "describe_midi",
    "exceptions",
    "listening_test",
    "measures",
    "plotting",
    "rank_correlation",
    "read_listening_test",
    "read_notes",
    "repetition",
    "split_midi",
    "structure",
    "two_sample_test",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = import_module(f"pianolstm.{name}")
    elif name in _MODULE_OF:
        value = getattr(import_module(f"pianolstm.{_MODULE_OF[name]}"), name)
    else:
        raise AttributeError(f"module 'pianolstm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
