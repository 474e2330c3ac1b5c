"""A folder of records that others add to: what is checked of it, and what is run again."""
