"""Jobs: training with RLlib, evaluation, and the command line over them."""
