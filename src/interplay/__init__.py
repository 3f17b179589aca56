"""Two language models, a user simulator and a recommender, in conversation: train, simulate, measure."""

__version__ = "0.1.0"
