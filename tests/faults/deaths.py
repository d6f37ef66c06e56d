"""Faults that kill: each takes a stage under load and returns when what died is up again."""

from tests.faults.stage import Stage


def gateway_killed(stage: Stage) -> None:
    stage.pause()
    stage.world.kill_gateway()
    stage.pause()
    stage.world.start_gateway()


def worker_killed(stage: Stage) -> None:
    stage.pause()
    stage.world.kill_worker()
    stage.pause()
    stage.world.start_worker()


def redis_killed(stage: Stage) -> None:
    stage.pause()
    stage.world.redis.kill()
    stage.pause()
    stage.world.redis.start()


def redis_emptied(stage: Stage) -> None:
    stage.rate_states_lost += 1
    for _ in range(stage.chance.randint(1, 2)):
        stage.pause()
        stage.world.flush_redis()


def postgres_killed(stage: Stage) -> None:
    stage.pause()
    stage.world.postgres.kill()
    stage.pause()
    stage.world.postgres.start()


DEATHS = {
    "gateway_killed": gateway_killed,
    "worker_killed": worker_killed,
    "redis_killed": redis_killed,
    "redis_emptied": redis_emptied,
    "postgres_killed": postgres_killed,
}
