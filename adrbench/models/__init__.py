"""Networks, RobustBench's zoo, and frozen and graphed models for attacks."""
