"""Generated Python repositories with one wrong expression, repaired with tools and graded by their tests."""
