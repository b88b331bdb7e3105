"""The winner: chosen by the search, written as a checkpoint with its recipe and model card."""
