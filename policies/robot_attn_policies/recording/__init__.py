"""Episodes, recorded and kept as files."""
