"""Self-contained HTML pages: recorded episodes and reports."""
