"""Users' models by name, and what feeds them."""
