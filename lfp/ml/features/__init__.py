"""Statistics of features in one pass over tokens, and what a reader sees of them."""
