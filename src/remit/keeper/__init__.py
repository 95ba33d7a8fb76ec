"""The keeper: the process that holds the log's key, the issuer's keys and the roots of brokers."""
