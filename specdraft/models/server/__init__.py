"""Models behind a server: how they are asked for the tokens that follow some others, and what is known of them."""
