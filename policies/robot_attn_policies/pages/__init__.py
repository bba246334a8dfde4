"""Pages in HTML: a replay to step through, and reports."""
