"""The whole job, once, on real parts: `make demo`."""
