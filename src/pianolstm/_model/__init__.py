"""What networks compute. Nothing here is public; use `SequenceGenerator`."""
