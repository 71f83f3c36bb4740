"""See a draft tree being accepted and rejected: in the terminal, and as a page that needs no network."""
