"""Uses of dependencies beyond their documented interface, one module per dependency.

No other module of the package uses them. Each has a contract test that shows what a new version of the
dependency has changed.
"""
