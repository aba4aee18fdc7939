"""Training. Nothing here is public; use `SequenceGenerator.fit`."""
