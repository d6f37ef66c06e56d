"""What was meant for other programs, in the environment that a run is started in."""

import os

# Another project's settings and modules.
OF_OTHER_PROJECTS = ("DJANGO_SETTINGS_MODULE", "PYTHONPATH", "PYTHONHOME", "PYTHONOPTIMIZE", "PYTHONWARNINGS")
# Celery and the web server believe these where we tell them otherwise or nothing: another broker, or several processes,
# which platforms set for all that runs on them. Ours have state that only one process may have.
OF_OUR_PROGRAMS = ("APP", "BROKER_URL", "RESULT_BACKEND", "LOADER", "CONFIG_MODULE", "SKIP_CHECKS", "WEB_CONCURRENCY")
PREFIXES_OF_OUR_PROGRAMS = ("CELERY_", "UVICORN_")
OURS = ("CELERY_BROKER_URL",)


def forget_variables_of_others() -> None:
    """Take them out of the environment of this process, and so of those that it starts."""
    for name in list(os.environ):
        is_of_our_programs = name in OF_OUR_PROGRAMS or name.startswith(PREFIXES_OF_OUR_PROGRAMS)
        if name in OF_OTHER_PROJECTS or (is_of_our_programs and name not in OURS):
            del os.environ[name]
