"""How kernels become machine code: compiled once, kept as object code on disk, loaded without their compiler.

May be imported by: `storage`, `kernels`. May import: nothing of ours.
"""
