"""What can be recommended: the catalog and its links to text, item vectors, retrieval. Knows nothing of who asks."""
