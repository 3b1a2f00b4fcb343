"""Each claim of the paper as a small experiment that can fail, and the record that holds what came out."""
