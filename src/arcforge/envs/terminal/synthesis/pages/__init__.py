"""From a folder of pages to those that a terminal task can be made of (GLM-5 report, section 4.2.2). Imports nothing by itself."""
