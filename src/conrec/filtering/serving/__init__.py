"""The filter as an HTTP service: limits, token, logs, metrics, live reload, and a page for people."""
