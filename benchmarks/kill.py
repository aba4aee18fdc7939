"""Kill -9 a training ten times at random moments, resume it each time, and compare.

The end must be that of a training that nobody disturbed, bit by bit.
"""

import random
import subprocess
import sys
import tempfile
import time

from common import arguments, publish

TRAINING = """
import hashlib, sys
import jax, numpy as np
import pianolstm as pl

pieces = pl.datasets.load_chorales("train")[:120]
model = pl.SequenceGenerator(
    arch="stacked", units=64, embedding=32, window_size=64, max_epochs=8, random_state=0,
    checkpoint_dir=sys.argv[1], checkpoint_minutes=0.02,
).fit(pieces)
digest = hashlib.sha256()
state = model._model.state
for leaf in jax.tree.leaves((state.params, state.average, state.opt_state)):
    digest.update(np.asarray(leaf).tobytes())
print(digest.hexdigest(), model.history_["val_loss"])
"""


def main():
    args = arguments(__doc__.splitlines()[0], kills=10, seed=0)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", TRAINING]
        began = time.monotonic()
        whole = subprocess.run(
            [*command, f"{folder}/undisturbed"], check=True, capture_output=True, text=True
        ).stdout
        seconds = time.monotonic() - began
        kills = 0
        while kills < args.kills:
            process = subprocess.Popen([*command, f"{folder}/killed"], stdout=subprocess.PIPE)
            try:
                # Importing and compiling take the first seconds of each.
                process.wait(rng.uniform(3, 3 + seconds / 2))
                sys.exit(f"the training ended after {kills} kills; give it more to do")
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                print(f"killed {kills} times", file=sys.stderr, flush=True)
        resumed = subprocess.run(
            [*command, f"{folder}/killed"], check=True, capture_output=True, text=True
        ).stdout
    same = "bit-identical to" if resumed == whole else "DIFFERENT from"
    publish(
        args,
        "kill",
        f"killed {kills} times at random moments, resumed each time: {same} the training that was "
        f"not disturbed ({seconds:.0f} s)",
    )
    sys.exit(resumed != whole)


if __name__ == "__main__":
    main()
