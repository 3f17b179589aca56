"""Protocols: replay of logs, single turns, recommendation at the gold turn, summaries of simulated Runs; and their scores."""
