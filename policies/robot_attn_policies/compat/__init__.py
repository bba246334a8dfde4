"""Non-public parts of dependencies that this package uses, one module per dependency.

Only these modules may use private names of a dependency. Each has a contract test, which names what a new
version of the dependency lacks.
"""
