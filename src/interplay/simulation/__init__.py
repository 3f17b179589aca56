"""Agents, the conversation loop that two of them hold, and thousands of conversations at once."""
