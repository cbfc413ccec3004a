"""Container instances: EC2 instances that run agents, tasks, and the proxy of host-proxy.

``ec2`` tells ``fleet`` of each instance that moto launches or ends, ``host`` is the life of one,
``machine`` what its programs run on, ``introspection`` the API of its ECS agent, ``faults`` what
can be broken about it.
"""
