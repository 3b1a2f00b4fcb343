"""What people look at: report.html, terminal tables and token traces of a run, all from its files alone."""
