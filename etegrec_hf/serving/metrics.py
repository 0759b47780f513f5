"""Figures of the server in the format of Prometheus."""

import os
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SHARED_FILES = "PROMETHEUS_MULTIPROC_DIR"  # the folder in which processes share their figures


class Metrics:
    """Figures of one process. With `PROMETHEUS_MULTIPROC_DIR` set, pages show the sums of all processes."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.seconds = Histogram(
            "etegrec_request_seconds", "Time to answer.", ["path"], buckets=SECONDS, registry=registry
        )
        self.requests = Counter("etegrec_requests", "Answered requests.", ["path", "status"], registry=registry)
        self.batch_rows = Histogram(
            "etegrec_batch_rows", "Histories decoded together.", buckets=ROWS, registry=registry
        )
        self.batch_seconds = Histogram(
            "etegrec_batch_seconds", "Time to decode a batch.", buckets=SECONDS, registry=registry
        )
        self.waiting = Gauge(
            "etegrec_queue_rows", "Histories that are waiting.", registry=registry, multiprocess_mode="livesum"
        )
        self.kept_users = Gauge(
            "etegrec_kept_users",
            "Users whose encoder states are kept.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.lists = Counter("etegrec_lists", "Lists: model, popular or empty.", ["answer"], registry=registry)
        self.items = Counter(
            "etegrec_items",
            "Items of lists: popular (of the most frequent tenth), other, cold (not in training), or uncounted.",
            ["kind"],
            registry=registry,
        )
        self.unknown_ids = Counter(
            "etegrec_unknown_ids", "Ids in requests that the model doesn't know.", registry=registry
        )
        self.loads = Counter("etegrec_model_loads", "Models loaded: ok or failed.", ["result"], registry=registry)

    def count_list(self, kinds: Iterable[str], is_popular: bool) -> None:
        """Counts a list, and its items by their kinds."""
        n_items = 0
        for kind in kinds:
            n_items += 1
            self.items.labels(kind).inc()
        self.lists.labels("empty" if not n_items else "popular" if is_popular else "model").inc()

    def page(self) -> bytes:
        """Returns all figures as text."""
        if SHARED_FILES not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return generate_latest(registry)

    def close(self) -> None:
        """Removes this process from the sums of waiting histories and kept users."""
        if SHARED_FILES in os.environ:
            multiprocess.mark_process_dead(os.getpid())
