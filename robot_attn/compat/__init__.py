"""What this package uses of its dependencies beyond their public interface, one module a dependency.

Nothing else in the package may touch a private name of a dependency. Each module has a contract test, which
names what a new version of the dependency no longer has.
"""
