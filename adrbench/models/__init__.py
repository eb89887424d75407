"""Networks, RobustBench's zoo, and the frozen and graphed forms that attacks run on."""
