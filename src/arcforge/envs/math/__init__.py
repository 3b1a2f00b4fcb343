"""Generated mathematics at five levels, its boxed answers checked for equality of value, whatever their form."""
