"""Seeded schedules of faults over the real loop, in one thread."""
