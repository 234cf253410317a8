"""Call the shop's tasks, and wait for what they return."""

from tasks import total, welcome

print(welcome.delay("Ada").get(timeout=10))
print(total.delay([9.5, 20.0]).get(timeout=10))
later = welcome.options(countdown=1).delay("Grace")  # waits in the broker, not in a worker
print(later.get(timeout=10))
