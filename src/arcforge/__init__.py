"""arcforge: the GLM-5 recipe as one code base."""

__version__ = "0.1.0"
