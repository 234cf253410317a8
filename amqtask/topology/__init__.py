"""What stands on the broker: exchanges, queues and bindings, and where a call goes.

Everything here is pure: it says which steps make a topology, and the transport
takes them, so that the same plan can be shown, compared and tested without a broker.
"""
