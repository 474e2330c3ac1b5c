"""Tables, plots and pages: views of run records."""
