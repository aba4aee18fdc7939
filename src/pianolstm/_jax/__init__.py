"""JAX as a guest in the program: settings, processes, compiled programs, keys."""
