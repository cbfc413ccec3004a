"""What moves the traffic: one module per router."""
