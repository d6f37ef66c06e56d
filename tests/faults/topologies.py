"""Faults of Redis on several processes: a node of a Cluster is killed, a master fails over to its replica."""

from tests.faults.catalog import Fault
from tests.faults.stage import Stage
from tests.support.redis_topologies import RedisCluster, SentinelGroup


def kill_master(cluster: RedisCluster) -> Fault:
    """A third of the shards is gone until its node is back, with its data."""

    def cluster_master_killed(stage: Stage) -> None:
        for _ in range(2):
            stage.pause()
            master = stage.chance.choice(cluster.masters)
            master.kill()
            stage.pause(0.2, 3.0)
            master.start()
            cluster.wait_until_whole()

    return cluster_master_killed


def empty_cluster(cluster: RedisCluster) -> Fault:
    def cluster_emptied(stage: Stage) -> None:
        stage.rate_states_lost += 1
        stage.pause()
        for master in cluster.masters:
            with master.client() as client:
                client.flushall()

    return cluster_emptied


def fail_over(group: SentinelGroup) -> Fault:
    """The master dies for good; its replica, which may lack its last writes, takes over. The dead one comes back."""

    def master_failed_over(stage: Stage) -> None:
        stage.rate_states_lost += 1
        stage.pause()
        dead = group.master()
        dead.kill()
        stage.load.wait_for_answers(20, seconds=60)
        dead.options = ()
        dead.start()
        group.wait_until_replicated()

    return master_failed_over
