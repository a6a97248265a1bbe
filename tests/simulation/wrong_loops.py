"""Wrong loops: each does one thing otherwise than the scorer, so that schedules of faults must find it out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import pyarrow as pa
import pytest

from simulation.application import simulated_app
from streaming.events.batch import EventBatch
from streaming.kafka.ahead import Ahead
from streaming.kafka.start_offsets import Inquiry
from streaming.loop.batch import Batch
from streaming.loop.poison.detection import KillsProcess
from streaming.loop.scorer import Scorer
from streaming.ops.background import Outcome
from streaming.state.snapshots import Standing
from streaming.store.dedup import SeenRequests
from streaming.store.micro_batches import Footprint

CHANGES = pytest.MonkeyPatch()


def change(target: object, name: str, value: object) -> None:
    """A method of one object replaced, until the test ends."""
    CHANGES.setattr(target, name, value)


def keeps_rows_of_an_aborted_batch(scorer: Scorer) -> None:
    change(scorer.state, "given_up", scorer.progress.rewind)


def does_not_read_an_aborted_batch_again(scorer: Scorer) -> None:
    change(scorer.source, "rewind", lambda positions: None)


def commits_offsets_before_scores(scorer: Scorer) -> None:
    commit, output = scorer.committing.commit, scorer.committing.output

    def early(batch: Batch, scores: Any, group: Any) -> None:
        if batch.commit_offsets:
            output.begin()
            output.offsets(batch.commit_offsets, group, scorer.lineages.note)
            output.commit()
        commit(dataclasses.replace(batch, commit_offsets={}), scores, group)

    change(scorer.committing, "commit", early)


def commits_scores_before_offsets(scorer: Scorer) -> None:
    commit, output = scorer.committing.commit, scorer.committing.output

    def late(batch: Batch, scores: Any, group: Any) -> None:
        commit(dataclasses.replace(batch, commit_offsets={}), scores, group)
        if batch.commit_offsets:
            output.begin()
            output.offsets(batch.commit_offsets, group, scorer.lineages.note)
            output.commit()

    change(scorer.committing, "commit", late)


def publishes_what_is_not_its_own_any_more(scorer: Scorer) -> None:
    change(scorer.source, "_settle", lambda: None)
    change(scorer.source, "_forget", lambda: None)


def begins_with_an_empty_state(scorer: Scorer) -> None:
    change(scorer.source, "replay", lambda: iter(()))


def publishes_dead_letters_of_dimensions_though_another_does(scorer: Scorer) -> None:
    change(scorer.progress, "owns_dimensions", lambda: True)


def does_not_ask_what_its_predecessor_published(scorer: Scorer) -> None:
    change(scorer.dimensions, "ask_committed", lambda: None)


def lets_an_event_see_the_later_ones_of_its_batch(scorer: Scorer) -> None:
    store: Any = scorer.preparation.store

    class Hasty:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def answer(self, events: EventBatch) -> pa.Table:
            store.restore(events)
            return store.request(events.rows[simulated_app().main])

    change(scorer.preparation, "store", Hasty())


def goes_on_when_a_transaction_was_aborted(scorer: Scorer) -> None:
    change(scorer.state, "given_up", lambda batch: None)


def takes_snapshots_that_name_an_earlier_offset(scorer: Scorer) -> None:
    if scorer.snapshots is None:
        return
    turn = scorer.snapshots.turn

    def early(standing: Standing | None) -> None:
        if standing is not None:
            before = {place: max(0, offset - 1) for place, offset in standing.actions.items()}
            standing = dataclasses.replace(standing, actions=before)
        turn(standing)

    change(scorer.snapshots, "turn", early)


def reads_dead_letters_again(scorer: Scorer) -> None:
    change(scorer.source.refused, "drop", lambda records: records)


def forgets_what_it_had_in_hand(scorer: Scorer) -> None:
    change(scorer.poison, "hold", lambda *_, **__: contextlib.nullcontext())


def puts_suspects_aside_untried(scorer: Scorer) -> None:
    change(scorer.poison, "_killer", lambda record: KillsProcess("features", "suspect"))


def drops_deadly_records_without_a_word(scorer: Scorer) -> None:
    split = scorer.poison.split
    change(scorer.poison, "split", lambda records, replayed=False: (split(records, replayed=replayed)[0], []))


def gives_up_what_was_read_behind_a_batch(scorer: Scorer) -> None:
    settle = scorer.pipeline.settle

    def hasty() -> None:
        scorer.progress.following = None
        settle()

    change(scorer.source, "_settle", hasty)


def remembers_requests_of_an_aborted_batch(scorer: Scorer) -> None:
    if (seen := seen_by(scorer)) is not None:
        change(seen, "rollback", lambda mark: None)


def forgets_requests_at_a_restart(scorer: Scorer) -> None:
    if (seen := seen_by(scorer)) is not None:
        seen.clear()


def counts_repeats_when_it_reads_the_log_again(scorer: Scorer) -> None:
    if seen_by(scorer) is not None:
        change(scorer.state, "_insert", scorer.store.restore)


def stays_paused_when_a_partition_comes_and_goes_again(scorer: Scorer) -> None:
    make, resume = scorer.rebuild._make, scorer.source.resume

    def not_now() -> None:
        change(scorer.source, "resume", resume)

    def interrupted(generation: int) -> None:
        make(generation)
        if generation != scorer.source.generation:
            change(scorer.source, "resume", not_now)

    change(scorer.rebuild, "_make", interrupted)


def lets_its_own_partitions_wait_while_it_asks_where_new_ones_start(scorer: Scorer) -> None:
    def at_once(work: Callable[[], None]) -> Outcome:
        done = Future[None]()
        work()
        done.set_result(None)
        return done

    change(scorer.source, "_start", at_once)


def lets_new_partitions_flow_from_their_ends(scorer: Scorer) -> None:
    change(Inquiry, "_start_of", lambda inquiry, partition: inquiry._told[partition].span.end)


def begins_at_the_first_record_that_is_left(scorer: Scorer) -> None:
    change(scorer.lineages, "first_offset", lambda partition, span: span.low)


def does_not_ask_whether_the_topic_is_the_same(scorer: Scorer) -> None:
    change(scorer.lineages.topics, "compare", lambda now: None)


def does_not_compare_what_the_group_has_noted(scorer: Scorer) -> None:
    change(scorer.lineages, "read_notes", lambda connection: None)


def forgets_a_topic_with_its_offsets(scorer: Scorer) -> None:
    notes = scorer.lineages.topics.notes
    (actions,) = scorer.source.topics
    change(
        scorer.lineages.topics, "notes", lambda waiting: {p: of for p, of in notes(waiting).items() if p[0] == actions}
    )


def publishes_again_what_the_group_has_forgotten(scorer: Scorer) -> None:
    change(scorer.lineages, "check_snapshot", lambda held: None)


def leaves_repeats_uncommitted(scorer: Scorer) -> None:
    submit = scorer.pipeline.submit
    change(scorer.pipeline, "submit", lambda batch: submit(batch) if batch and (batch.records or batch.dead) else None)


def seen_by(scorer: Scorer) -> SeenRequests | None:
    store: Any = scorer.store
    seen: SeenRequests | None = store._seen
    return seen


def deletes_again_what_its_predecessor_has_read(scorer: Scorer) -> None:
    change(EventBatch, "without_deletes", lambda events: events)


def leaves_the_rows_that_a_tombstone_deletes(scorer: Scorer) -> None:
    store: Any = scorer.store
    change(getattr(store, "_store", store)._engine, "delete", lambda *_: 0)


RARE: dict[Callable[[Scorer], None], tuple[int, Mapping[str, float]]] = {
    publishes_what_is_not_its_own_any_more: (140, {"rebalance": 0.05}),
    reads_dead_letters_again: (190, {}),
    gives_up_what_was_read_behind_a_batch: (180, {"model slow": 0.5, "rebalance": 0.05, "crash": 0.0, "freeze": 0.0}),
    takes_snapshots_that_name_an_earlier_offset: (0, {"crash": 0.02, "freeze": 0.0, "rebalance": 0.0}),
    forgets_requests_at_a_restart: (100, {"crash": 0.03, "freeze": 0.0, "rebalance": 0.0}),
    stays_paused_when_a_partition_comes_and_goes_again: (
        0,
        {
            **dict.fromkeys(("model slow", "model away", "crash", "freeze", "stop", "lost producer", "hang"), 0.0),
            "rebalance": 0.04,
        },
    ),
}
"""Where to begin with a fault that few schedules bring to light, and what makes them more."""

HARMS: dict[Callable[[Scorer], None], str] = {
    begins_at_the_first_record_that_is_left: "retention",
    does_not_ask_whether_the_topic_is_the_same: "topic made anew",
    does_not_compare_what_the_group_has_noted: "partition added",
    forgets_a_topic_with_its_offsets: "topic made anew",
    publishes_again_what_the_group_has_forgotten: "group deleted",
}
"""What has to be done to the log, so that it shows."""

SNAPSHOTS = {
    takes_snapshots_that_name_an_earlier_offset,
    forgets_requests_at_a_restart,
    publishes_again_what_the_group_has_forgotten,
}
"""What only a restart from a snapshot can bring to light."""


def commits_offsets_of_what_it_has_not_sent(scorer: Scorer) -> None:
    commit, source = scorer.committing.commit, scorer.source

    def early(batch: Batch, scores: Any, group: Any) -> None:
        if batch.commit_offsets:
            source.commits.commit(batch.commit_offsets, scorer.lineages.note)
        commit(dataclasses.replace(batch, commit_offsets={}), scores, group)

    change(scorer.committing, "commit", early)


def forgets_what_the_brokers_did_not_take(scorer: Scorer) -> None:
    change(scorer.committing.output, "_on_delivery", lambda error, message: None)
    scorer.committing.output._producer._on_delivery = lambda error, message: None  # type: ignore[attr-defined]


def takes_snapshots_of_what_the_group_does_not_know(scorer: Scorer) -> None:
    change(scorer.source.commits, "acknowledged", lambda positions: True)


def inserts_request_rows_before_their_scores_are_committed(scorer: Scorer) -> None:
    store: Any = scorer.preparation.store
    answer = store.answer

    def early(events: EventBatch) -> pa.Table:
        answers = answer(events)
        store.accept(events)
        return answers

    change(store, "answer", early)


def leaves_lost_rows_to_a_dead_tablet(scorer: Scorer) -> None:
    store: Any = scorer.preparation.store
    change(scorer.state, "_insert_again", lambda: setattr(store, "doubtful", False))


def trusts_a_cluster_that_it_has_not_called_for_long(scorer: Scorer) -> None:
    change(scorer.preparation.store, "_is_silent", lambda: False)


def does_not_insert_what_its_predecessor_owed(scorer: Scorer) -> None:
    change(scorer.source, "replay", lambda tail: iter(()))


def scores_again_what_is_done_behind_an_offset(scorer: Scorer) -> None:
    change(scorer.lineages, "noted_ahead", lambda partition, offset: Ahead(offset))


def asks_all_that_is_open_at_once(scorer: Scorer) -> None:
    store: Any = scorer.preparation.store
    change(store, "footprints", lambda events, keys: [Footprint()] * len(events))


def inserts_all_that_is_open_beside_what_is_asked(scorer: Scorer) -> None:
    state: Any = scorer.state
    choose = state._micro_batches

    def greedy() -> tuple[Any, Any]:
        chosen, _ = choose()
        taken = set(map(id, chosen))
        return chosen, [waiting.event for key, waiting in state._backlog._waiting.items() if key not in taken]

    change(state, "_micro_batches", greedy)


def asks_before_the_rows_beside_are_in(scorer: Scorer) -> None:
    store: Any = scorer.preparation.store
    begin = store._begin_beside

    def hasty() -> None:
        coming = set(map(id, store._next.records))
        begin()
        store._beside = None
        store._inserted |= coming

    change(store, "_begin_beside", hasty)
