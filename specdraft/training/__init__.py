"""Training of drafters: `specdraft train medusa | eagle | hydra | redrafter | parallel | nano | draft`.

Texts (`texts.py`) are read by the target once, and what it says along them is kept on disk (`states.py`): its last
states, from which its output layer makes its distribution at every token. From these a kind's objective (`medusa.py`,
`eagle.py`, `path_heads.py`, `parallel.py`, `draft_model.py`, `joint.py`) learns, in one loop (`loop.py`) that goes on
after a kill at the step it had, in a folder of its own (`folder.py`). What is written is judged by replay on texts that
were held out (`held_out.py`), and described by a card (`card.py`).
Heads that others trained are written as such folders by `imported_heads.py`.

May import: study and everything below.
"""
