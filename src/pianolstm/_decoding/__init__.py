"""Writing music. Nothing here is public; use `SequenceGenerator.generate` or `stream`."""
