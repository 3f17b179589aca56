"""How a conversation is written for a model and read back: the token rendering and the chat rendering."""
