"""Terminal tasks that a language model writes and that machinery admits (GLM-5 report, section 4.2.2). Imports nothing by itself."""
