"""What the live sources of several queues share: when they end, and what stands in their URLs."""
