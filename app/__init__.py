"""The explorer: reads bundles, shows them."""
