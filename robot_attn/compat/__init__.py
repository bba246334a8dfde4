"""Uses of private interfaces of dependencies, one module per dependency.

No other part of the package may use a private name of a dependency. The contract test of each module reports
names that a new version of the dependency has removed.
"""
