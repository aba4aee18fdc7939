"""What determines the shape of a network."""

from __future__ import annotations

from dataclasses import dataclass

from pianolstm._model.pitch_lstm import ALL_PITCHES, Range
from pianolstm.vocabulary import Clock

ARCHITECTURES = ("lstm", "bilstm", "stacked", "hybrid", "hybrid_stacked")


@dataclass(frozen=True)
class NetworkConfig:
    """What determines the shape of a network; hashable, so that it can key compiled programs."""

    arch: str
    n_rows: int  # of the softmax, 0 where chords are spelled
    units: int
    embedding: int
    dropout: float
    window_size: int
    spell: bool = False
    recall: bool = False
    clock: Clock = "frames"
    beat: float = 0.0  # see `Corpus`
    pitches: Range = ALL_PITCHES  # those that are heard and written one by one

    @property
    def is_causal(self) -> bool:
        """Whether a state is carried; the Bi-LSTM reads its window anew for each frame."""
        return self.arch != "bilstm"

    @property
    def n_layers(self) -> int:
        """LSTM layers, one above the other."""
        return 2 if self.arch in ("stacked", "hybrid_stacked") else 1

    @property
    def size(self) -> tuple[str, int, int, int, bool, Clock, float, Range]:
        """What models have in common that share programs."""
        sizes = self.n_rows, self.units, self.embedding
        return self.arch, *sizes, self.spell, self.clock, self.beat, self.pitches

    @property
    def pitch_widths(self) -> tuple[int, int, int, int]:
        """What each pitch reads, its state, the layers that write notes and what changes first."""
        eighth = max(1, self.embedding // 8)
        return 2 * eighth, 3 * eighth, 6 * eighth, 4 * eighth
