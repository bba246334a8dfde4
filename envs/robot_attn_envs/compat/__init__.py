"""Uses of private parts of dependencies, one module per dependency.

No other module of the package may use a private name of a dependency. Each module has a contract test that
fails with the name of what a new version of the dependency lacks.
"""
