"""What a notebook or a program calls: runs, results as tables, and trained models."""
