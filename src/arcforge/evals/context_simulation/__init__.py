"""A simulation of context policies: a scripted searcher, whose reading gets worse with a longer context, run by the real loop."""
