"""Programs and helpers that drive real processes: chaos, soak, fuzz, traffic, faults, fakes that inject them."""
