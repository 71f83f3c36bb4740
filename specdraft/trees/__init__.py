"""Draft trees: which nodes there are, the tokens on them, the shapes that make them, and what a step was."""
