"""Train on several hosts: start this on each, with a number of its own.

python examples/several_hosts.py STORE OUT --at first-host:1234 --processes 2 --number 0
python examples/several_hosts.py STORE OUT --at first-host:1234 --processes 2 --number 1

STORE is a folder that `pianolstm.TokenStore` has written, within reach of all hosts;
the model is written to OUT.
"""

import argparse

import jax


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on several hosts.")
    parser.add_argument("store", help="folder of a TokenStore, within reach of all hosts")
    parser.add_argument("out", help="model file, which process 0 writes")
    parser.add_argument("--at", required=True, help="host and port where process 0 listens")
    parser.add_argument("--processes", type=int, required=True, help="how many there are")
    parser.add_argument("--number", type=int, required=True, help="which of them this is, from 0")
    parser.add_argument("--arch", default="stacked", help="network (default: stacked)")
    parser.add_argument("--batch-size", type=int, default=128, help="windows over all devices")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--verbose", type=int, default=1)
    args = parser.parse_args()

    # Before anything else that uses JAX, so that it sees the devices of all hosts.
    jax.distributed.initialize(args.at, args.processes, args.number)

    import pianolstm as pl

    model = pl.SequenceGenerator(
        arch=args.arch,
        batch_size=args.batch_size,
        max_epochs=args.epochs,
        random_state=0,
        verbose=args.verbose,
    )
    model.fit(pl.TokenStore(args.store))
    if args.number == 0:
        model.save(args.out)


if __name__ == "__main__":
    main()
