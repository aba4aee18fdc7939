"""How good a model is after minutes of training: likelihood, and what it writes beside real music.

The 86 pieces, 20 frames a second, those with index 4, 14, 24, … of the sorted list held out; one
LSTM with defaults, one run a row, one after the other. Nats a second and a note are of the held-out
pieces, with what is recalled and without. Music: 16 pieces of 50 seconds that continue the first 10
seconds of excerpts of held-out pieces, beside the excerpts' own next 50 seconds: notes a second,
the share of the time in chords held for three seconds and more, and the longest chord.

The row "torch" is an LSTM as it is commonly written: chord tokens of frames, an embedding, cross
entropy, Adam; chords outside its vocabulary cost the same independent pitches as with
`spell=False`.
"""

import time

import numpy as np

import pianolstm as pl
from common import arguments, pieces, publish
from pianolstm.chords import ages
from pianolstm.tokens import TokenCorpus
from pianolstm.vocabulary import Corpus, PitchBernoulli

FS, PRIME, MUSIC = 20, 200, 1000
N_PIECES = 16
BATCH, WINDOW, UNITS, EMBEDDING = 16, 200, 256, 128


def excerpts(held_out):
    """A minute of each held-out piece, from places that are drawn once and for all."""
    rng = np.random.default_rng(0)
    long = [roll for roll in held_out if len(roll) > PRIME + MUSIC]
    chosen = [long[i % len(long)] for i in range(N_PIECES)]
    starts = [int(rng.integers(len(roll) - PRIME - MUSIC)) for roll in chosen]
    return [roll[a : a + PRIME + MUSIC] for roll, a in zip(chosen, starts, strict=True)]


def like(rolls):
    """Notes a second, share of the time in chords of three seconds and more, the longest chord."""
    n_notes, long, longest = 0, 0, 0
    for roll in rolls:
        corpus = TokenCorpus.of([roll])
        begins = ages(corpus.chords[corpus.tokens[0]]) == 0
        begins[0] = True
        lasted = np.diff(np.flatnonzero(np.append(begins, True)))
        n_notes += int(roll.onset.sum())
        long += int(lasted[lasted >= 3 * FS].sum())
        longest = max(longest, int(lasted.max()))
    seconds = sum(map(len, rolls)) / FS
    return n_notes / seconds, long / FS / seconds, longest / FS


def ours(clock, train, held_out, seconds):
    model = pl.SequenceGenerator(clock=clock, time_budget=seconds, random_state=0).fit(train)
    nats = []
    for recall in (True, False):
        model.recall = recall
        nats += [-model.score(held_out, per=per) for per in ("second", "note")]
    model.recall = True
    primes = [roll[:PRIME] for roll in excerpts(held_out)]
    music = model.generate(MUSIC, n_pieces=N_PIECES, prime=primes, random_state=0)
    return model.history_["epoch"][-1], nats, like(music)


def network_of(n_tokens):
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(n_tokens + 1, EMBEDDING)
            self.lstm = torch.nn.LSTM(EMBEDDING, UNITS, batch_first=True)
            self.output = torch.nn.Linear(UNITS, n_tokens + 1)

        def forward(self, ids):
            return self.output(self.lstm(self.embedding(ids))[0])

    return Network()


def theirs(train, held_out, seconds):
    """Of torch's LSTM, trained for as long: epochs, nats a second and a note."""
    import torch

    torch.manual_seed(0)
    seen = TokenCorpus.of(train)
    # Chords of one frame alone stand for those that are not known.
    counts = pl.ChordTokenizer().fit(train).counts_
    tokenizer = pl.ChordTokenizer(max_tokens=int((counts > 1).sum()))
    vocabulary = tokenizer.fit(train).vocabulary_
    n_tokens = len(vocabulary)
    bernoulli = PitchBernoulli.fit(Corpus.of(vocabulary, seen))

    def ids_of(rolls):
        ids = [np.asarray(s.tokens, np.int64) for s in tokenizer.transform(rolls)]
        return [torch.from_numpy(np.minimum(piece, n_tokens)) for piece in ids]

    network, tokens = network_of(n_tokens), ids_of(train)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    lengths = np.array([len(piece) for piece in tokens])
    began, rng, n_frames = time.monotonic(), np.random.default_rng(0), 0
    while time.monotonic() - began < seconds:
        rows = []
        for i in rng.choice(len(tokens), BATCH, p=lengths / lengths.sum()):
            a = int(rng.integers(max(1, lengths[i] - WINDOW)))
            rows.append(tokens[i][a : a + WINDOW + 1])
        rows = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
        adam.zero_grad()
        logits = network(rows[:, :-1].clamp(min=0)).flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, rows[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        n_frames += rows[:, 1:].numel()
    total, n_notes = 0.0, 0
    with torch.no_grad():
        for roll, ids in zip(held_out, ids_of(held_out), strict=True):
            first = torch.zeros(1, dtype=torch.int64)  # a rest before the piece
            logits = network(torch.cat([first, ids[:-1]])[None])[0]
            log_p = torch.log_softmax(logits, -1)[torch.arange(len(ids)), ids].double().numpy()
            one = TokenCorpus.of([roll])
            chords = one.chords[one.tokens[0]]
            before = np.concatenate([np.zeros((1, 4), np.uint64), chords[:-1]])
            unknown = ids.numpy() == n_tokens
            log_p[unknown] += bernoulli.log_likelihood(chords[unknown], before[unknown])
            total, n_notes = total - log_p.sum(), n_notes + int(roll.onset.sum())
    frames = sum(map(len, held_out))
    return n_frames / lengths.sum(), [total * FS / frames, total / n_notes]


def main():
    args = arguments(__doc__.splitlines()[0], minutes="1,3,10", rows="frames,changes,torch")
    rolls = pl.PianoRollEncoder(fs=FS).fit_transform(pieces(args))
    held_out = [roll for i, roll in enumerate(rolls) if i % 10 == 4]
    train = [roll for i, roll in enumerate(rolls) if i % 10 != 4]
    real = like([roll[PRIME:] for roll in excerpts(held_out)])
    head = f"{'':<9}{'minutes':>8}{'epochs':>8}{'nats/s':>8}{'nats/note':>11}"
    head += f"{'without recall':>16}{'':>7}{'notes/s':>9}{'long':>7}{'longest':>9}"
    lines = [head, f"{'real':<9}{'':>58}{real[0]:>9.2f}{real[1]:>7.3f}{real[2]:>8.1f}s"]
    for minutes in (float(m) for m in args.minutes.split(",")):
        for row in args.rows.split(","):
            start = f"{row:<9}{minutes:>8g}"
            if row == "torch":
                epochs, nats = theirs(train, held_out, 60 * minutes)
                lines.append(f"{start}{epochs:>8.2f}{'':>19}{nats[0]:>16.2f}{nats[1]:>7.3f}")
            else:
                epochs, nats, music = ours(row, train, held_out, 60 * minutes)
                second, note, plain, plain_note = nats
                line = f"{start}{epochs:>8.2f}{second:>8.2f}{note:>11.3f}{plain:>16.2f}"
                line += f"{plain_note:>7.3f}{music[0]:>9.2f}{music[1]:>7.3f}{music[2]:>8.1f}s"
                lines.append(line)
            print(lines[-1], flush=True)
    publish(args, "time_to_quality", "\n".join(lines))


if __name__ == "__main__":
    main()
