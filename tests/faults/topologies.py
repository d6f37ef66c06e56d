"""A fault that only a Redis with a replica can have. Every other strikes a Cluster or a Sentinel's master as it is."""

from tests.faults.scenario import Scenario
from tests.support.redis_topologies import RedisNode


def master_failed_over(scenario: Scenario) -> None:
    """The master dies; its replica, which may lack its last writes, takes over; the dead one comes back and follows."""
    scenario.pause()
    dead: RedisNode = scenario.strike_redis()
    dead.kill()
    scenario.load.wait_for_answers(20, seconds=60)
    scenario.stack.bring_redis_back(dead)
