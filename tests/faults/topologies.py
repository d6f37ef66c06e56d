"""A fault that only a Redis with a replica can have. Every other strikes a Cluster or a Sentinel's master as it is."""

from tests.faults.stage import Stage
from tests.support.redis_topologies import RedisNode


def master_failed_over(stage: Stage) -> None:
    """The master dies; its replica, which may lack its last writes, takes over; the dead one comes back and follows."""
    stage.pause()
    dead: RedisNode = stage.strike_redis()
    dead.kill()
    stage.load.wait_for_answers(20, seconds=60)
    stage.world.bring_redis_back(dead)
