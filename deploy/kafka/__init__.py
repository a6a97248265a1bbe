"""A Kafka broker (KRaft, one node) from Maven Central, without Docker."""
