"""How near music is to what a model learned from."""
