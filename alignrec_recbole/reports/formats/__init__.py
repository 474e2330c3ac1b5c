"""Formats of tables: terminal and Markdown, HTML, LaTeX, CSV."""
