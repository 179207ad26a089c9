"""What a run did, shown: terminal tables, the HTML report, the live page, Weights & Biases."""
