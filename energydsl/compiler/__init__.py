"""From a model to an EBM: what is concluded, chosen and explained."""
