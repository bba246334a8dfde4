"""The tasks: one file each, and the parts that their scenes share."""
