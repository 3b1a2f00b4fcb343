"""Files of many forms as cleaned pages: text, sections, links, fields and defined terms."""
