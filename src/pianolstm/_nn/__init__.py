"""Networks, their training and sampling. Nothing here is public; use `SequenceGenerator`."""
