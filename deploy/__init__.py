"""What the scorer runs on: environments, Kafka, Triton, and the demo that starts them all."""
