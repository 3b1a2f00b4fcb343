"""Tasks from a manifest of measured environments: prepared on this machine, worked on in a sandbox, graded in another one."""
