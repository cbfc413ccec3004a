"""The whole system on one machine: AWS APIs, the agents and a load balancer, for development."""
