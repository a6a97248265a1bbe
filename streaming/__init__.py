"""Online: actions in on Kafka, purchase probabilities out."""
