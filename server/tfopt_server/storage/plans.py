"""Plans in a bucket, for replicas that share no folder: --plan_cache_dir=gs://bucket/plans.

A plan has its name from what it was made for (model, flags, versions, machine), so a bucket needs no index: a server
that has no such plan on its own disk asks for that folder, and one that made a plan puts it there, plan.json last. A
plan that is only half there has no plan.json, or its checksums fail, and counts as absent (optimizer's cache.py). There
is no lock: replicas that start together all search, and the first one's plan stays.

A bucket that cannot be read or written costs time, never the model: the log says so.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from tfopt_optimizer import exchange

from tfopt_server.storage.download import Download, safe
from tfopt_server.storage.store import StorageError, Store
from tfopt_server.uris import Uri

log = logging.getLogger(__name__)

PLAN = "plan.json"
Say = Callable[[str], None]


def pull(uri: Uri, name: str, cache: Path, say: Say, open_store: Callable[[Uri], Store] = Store) -> bool:
    """Brings the plan of that name into the cache, in place of one that is there; False where there is none."""
    part = cache / f"{name}.part.{uuid.uuid4().hex}"
    try:
        store = open_store(uri)
        objects = store.tree(name)
        if PLAN not in (each.path for each in objects):
            return False
        Download(store.read, f"{uri}/{name}", part, say).run(objects)
        exchange.replace(part, cache / name)
    except (StorageError, OSError) as error:
        log.warning("the plan in the bucket is not used: %s", error)
        return False
    finally:
        shutil.rmtree(part, ignore_errors=True)
    say(f"plan {name} came from {uri}")
    return True


def push(uri: Uri, folder: Path, say: Say, *, anew: bool, open_store: Callable[[Uri], Store] = Store) -> None:
    """Puts a plan into the bucket, unless one of its name is there; `anew`: that one is damaged."""
    try:
        store = open_store(uri)
        if not anew and PLAN in (each.path for each in store.tree(folder.name)):
            return
        files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: (p.name == PLAN, p))
        for path in files:
            store.write(f"{folder.name}/{safe(str(path.relative_to(folder)))}", path)
    except (StorageError, OSError) as error:
        log.warning("the plan was not put into the bucket: %s", error)
        return
    say(f"plan {folder.name} is in {uri} for other servers")
