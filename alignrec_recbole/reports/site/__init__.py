"""A static site from records: a start page, and a page per data set, run and audit."""
