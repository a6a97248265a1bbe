"""Where a register lies in `mem`."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

from streaming.engine.kernels.instructions import SLOT_BITS, SLOT_MASK, Domain
from streaming.engine.native.kernel import Matrix, inner

__all__ = ["element_place", "is_vector", "place"]


@inner
def place(domains: Matrix, register: int) -> int:
    """Where a register begins."""
    domain = register >> SLOT_BITS
    return domains[domain, Domain.BASE] + (register & SLOT_MASK) * domains[domain, Domain.LENGTH]


@inner
def is_vector(register: int) -> int:
    """1 where a register has a value per element, 0 where it is a constant: the step from an element to the next."""
    return 1 if register >> SLOT_BITS else 0


@inner
def element_place(domains: Matrix, register: int, i: int) -> int:
    """Where a register has the value of element i."""
    return place(domains, register) + (i if register >> SLOT_BITS else 0)
